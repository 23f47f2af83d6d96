"""Reads a job's tokens straight from Kafka: read_tokens.py BROKER JOB

Needs confluent-kafka (pip install confluent-kafka). It reads every partition
from its beginning, without a consumer group, until the job has ended.
"""

import json
import sys

from confluent_kafka import Consumer, TopicPartition

TOPIC = "penstock.tokens"
TERMINAL = ("output.completed", "output.failed", "output.cancelled")


def counts(epochs, partition, event):
    """The fence: says whether an event counts. Call it for every record, in log order."""
    lane, epoch, kind = event.get("lane"), event.get("epoch", 0), event["type"]
    newest = epochs.get((partition, lane), 0)
    if epoch < newest:
        return False  # its writer had lost the lane when it wrote this
    epochs[partition, lane] = epoch
    return kind.startswith("output.")


def read(broker, job, tenant="default"):
    """Yields the job's events that count, each once, in order."""
    consumer = Consumer({
        "bootstrap.servers": broker,
        "group.id": "unused",  # the library wants one; nothing is joined or committed
        "enable.auto.commit": False,
        "auto.offset.reset": "error",  # never skip silently what is gone
    })
    metadata = consumer.list_topics(TOPIC, timeout=10).topics[TOPIC]
    consumer.assign([
        TopicPartition(TOPIC, p, consumer.get_watermark_offsets(TopicPartition(TOPIC, p), timeout=10)[0])
        for p in metadata.partitions
    ])
    epochs, next_seq = {}, 0
    try:
        while True:
            message = consumer.poll(timeout=30)
            if message is None:
                raise TimeoutError(f"no record for 30 seconds, and {job} has not ended")
            if message.error():
                raise RuntimeError(message.error())
            try:
                event = json.loads(message.value())
            except ValueError:
                continue  # no event of Penstock's
            if not isinstance(event, dict) or "type" not in event:
                continue
            if not counts(epochs, message.partition(), event):
                continue
            if event["job"] != job or event["tenant"] != tenant or event["seq"] < next_seq:
                continue
            if event["seq"] > next_seq:
                raise RuntimeError(f"events {next_seq} to {event['seq'] - 1} of {job} are gone from the log")
            next_seq = event["seq"] + 1
            yield event
            if event["type"] in TERMINAL:
                return
    finally:
        consumer.close()


if __name__ == "__main__":
    for event in read(sys.argv[1], sys.argv[2]):
        if event["type"] == "output.delta":
            print(event["data"].get("content", ""), end="", flush=True)
        elif event["type"] == "output.superseded":
            print("\n[begins anew]")
        else:
            print(f"\n[{event['type']} {event['data']}]")
