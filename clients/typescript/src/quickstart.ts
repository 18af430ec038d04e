// One record in, all records out, with nothing but generated stubs: node dist/quickstart.js [HOST:PORT [TOPIC]]
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import * as weir from "./weir.js";

const [address = "localhost:9347", topic = "greetings"] = process.argv.slice(2);

const transport = createGrpcTransport({ baseUrl: `http://${address}` });
const records = [{ value: Buffer.from("hello") }];
await createClient(weir.ProducerService, transport).produce({ topic, records });
for await (const message of createClient(weir.ConsumerService, transport).consume({ topics: [topic], untilEnd: true })) {
  for (const record of message.records) console.log(record.offset, Buffer.from(record.value ?? []).toString());
}
