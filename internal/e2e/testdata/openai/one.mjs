// One streamed chat with the official SDK for Node.js: prints its id, then its text.
import OpenAI from 'openai';

const client = new OpenAI({ baseURL: process.argv[2] + '/v1', apiKey: 'anything', maxRetries: 0, timeout: 60_000 });
const answer = await client.chat.completions
  .stream({ model: 'sim', messages: [{ role: 'user', content: 'hi' }] })
  .finalChatCompletion();
process.stdout.write(`${answer.id}\n${answer.choices[0].message.content}`);
