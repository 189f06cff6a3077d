"""The other side of the relay, by a client that none of ours had a part in.

amqp.py PORT bind QUEUE KEY      makes a durable queue bound to the exchange
amqp.py PORT publish             publishes what standard input has: [key, message id or null, content, headers] a line
amqp.py PORT drain QUEUE         prints all that a queue has, one object a line
amqp.py PORT count QUEUE         prints how many messages a queue has
amqp.py PORT clear               removes the queues that tests use
"""

import json
import sys

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorStackTimeout

EXCHANGE = "source_exchange"
QUEUES = ["outgoing_sms", "acknowledge_sms", "twilio_dead_letter", "recorded", "bans"]


def main():
    port, action, *rest = sys.argv[1:]
    connection = connect(int(port))
    channel = connection.channel()
    ACTIONS[action](channel, *rest)
    connection.close()


def connect(port):
    """A server that is not there is told at once, one that takes its time is asked again."""
    parameters = pika.ConnectionParameters("127.0.0.1", port)
    for _ in range(2):
        try:
            return pika.BlockingConnection(parameters)
        except AMQPConnectorStackTimeout:
            pass
    return pika.BlockingConnection(parameters)


def bind(channel, queue, key):
    channel.exchange_declare(EXCHANGE, "topic", durable=True)
    channel.queue_declare(queue, durable=True)
    channel.queue_bind(queue, EXCHANGE, key)


def publish(channel):
    channel.confirm_delivery()
    for line in sys.stdin:
        key, message_id, content, headers = json.loads(line)
        properties = pika.BasicProperties(message_id=message_id, headers=headers, delivery_mode=2)
        channel.basic_publish(EXCHANGE, key, content.encode(), properties, mandatory=True)


def drain(channel, queue):
    left = channel.queue_declare(queue, passive=True).method.message_count
    for _ in range(left):
        method, properties, content = channel.basic_get(queue, auto_ack=True)
        print(json.dumps({
            "key": method.routing_key,
            "id": properties.message_id,
            "type": properties.type,
            "delivery_mode": properties.delivery_mode,
            "headers": properties.headers or {},
            "content": content.decode(),
        }))


def count(channel, queue):
    print(channel.queue_declare(queue, passive=True).method.message_count)


def clear(channel):
    for queue in QUEUES:
        channel.queue_delete(queue)


ACTIONS = {"bind": bind, "publish": publish, "drain": drain, "count": count, "clear": clear}
main()
