import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Submits jobs with Kafka's own producer: Submit BROKER TOPIC JOB...
 *
 * It needs kafka-clients and slf4j-api on the class path, and prints where each
 * request stands: the job, its partition, its offset.
 */
public class Submit {
    public static void main(String[] args) throws Exception {
        var config = new Properties();
        config.put("bootstrap.servers", args[0]);
        config.put("key.serializer", StringSerializer.class.getName());
        config.put("value.serializer", StringSerializer.class.getName());
        try (var producer = new KafkaProducer<String, String>(config)) {
            for (int i = 2; i < args.length; i++) {
                var job = args[i];
                var request = """
                    {"job":"%s","data":{"body":{"model":"sim","messages":[{"role":"user","content":"hi"}]}}}"""
                    .formatted(job);
                // The job's id as the key: the same job again goes to the same partition.
                var at = producer.send(new ProducerRecord<>(args[1], job, request)).get();
                System.out.println(job + " " + at.partition() + " " + at.offset());
            }
        }
    }
}
