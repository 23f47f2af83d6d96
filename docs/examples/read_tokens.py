"""Reads a job's tokens straight from Kafka: read_tokens.py [--events] BROKER JOB [TOPIC]

Needs confluent-kafka (pip install confluent-kafka). It reads every partition
from its beginning, without a consumer group, until the job has ended, however
long that takes. It prints the job's text, or with --events its records as they
stand.
"""

import json
import sys

from confluent_kafka import Consumer, TopicPartition

TERMINAL = ("output.completed", "output.failed", "output.cancelled")


def events(broker, topic):
    """Yields (partition, event, value) of every record, each partition in log order."""
    consumer = Consumer({
        "bootstrap.servers": broker,
        "group.id": "unused",  # the library wants one; nothing is joined or committed
        "enable.auto.commit": False,
        "auto.offset.reset": "error",  # never skip silently what is gone
    })
    try:
        found = consumer.list_topics(topic, timeout=10).topics[topic]
        if found.error:
            raise RuntimeError(found.error)
        starts = []
        for partition in found.partitions:
            first, _ = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
            starts.append(TopicPartition(topic, partition, first))
        consumer.assign(starts)
        while True:
            message = consumer.poll(timeout=1)
            if message is None:
                continue  # a job may be silent for long
            if message.error():
                raise RuntimeError(message.error())
            try:
                event = json.loads(message.value() or b"")
            except ValueError:
                continue  # no event of Penstock's
            if isinstance(event, dict) and isinstance(event.get("type"), str):
                yield message.partition(), event, message.value()
    finally:
        consumer.close()


class Fence:
    """Says which events count. Show it every event of a partition, in log order."""

    def __init__(self):
        self.epochs = {}  # by partition and lane, the newest seen

    def admits(self, partition, event):
        output = event["type"].startswith("output.")
        if not output and event["type"] != "lane.claimed":
            return False
        lane, epoch = (partition, event["lane"]), event["epoch"]
        if epoch < self.epochs.get(lane, 0):
            return False  # its writer had lost the lane when it wrote this
        self.epochs[lane] = epoch
        return output


def read(broker, job, topic="penstock.tokens", tenant="default"):
    """Yields a job's events that count, each once and in order, with their bytes."""
    fence, next_seq = Fence(), 0
    for partition, event, value in events(broker, topic):
        if not fence.admits(partition, event):
            continue
        if event["job"] != job or event["tenant"] != tenant or event["seq"] < next_seq:
            continue
        if event["seq"] > next_seq:
            raise RuntimeError(f"events {next_seq} to {event['seq'] - 1} of {job} are gone from the log")
        next_seq += 1
        yield event, value
        if event["type"] in TERMINAL:
            return


def deltas(event):
    """What an event says of the answer. Of a job with "stream": false its end says all."""
    if event["type"] == "output.delta":
        return [event["data"]]
    return event["data"].get("deltas", [])


if __name__ == "__main__":
    args = [a for a in sys.argv[1:] if a != "--events"]
    for event, value in read(*args):
        if "--events" in sys.argv:
            print(value.decode(), flush=True)
            continue
        for delta in deltas(event):
            if delta["index"] == 0:
                print(delta.get("content", ""), end="", flush=True)
        if event["type"] == "output.superseded":
            print("\n[the text above is void: the answer begins anew]")
        elif event["type"] in TERMINAL:
            print(f"\n[{event['type']} {json.dumps(event['data'])}]")
