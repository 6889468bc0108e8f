// BullMQ: the worker and the clients that `run` measures.
"use strict";
const { Queue, Worker } = require("bullmq");

const redis = new URL(process.env.REDIS_URL);
const connection = { host: redis.hostname, port: Number(redis.port) };
const args = { sent_us: 0, sleep_s: 0, pad: "x".repeat(64) }; // about 100 bytes as JSON
const clockUs = () => Number(process.hrtime.bigint() / 1000n); // the monotonic clock: one for all processes
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function work(concurrency, expected) {
  let firstUs;
  let done = 0;
  const waitsUs = [];
  const perform = async ({ data }) => {
    const nowUs = clockUs();
    firstUs ??= nowUs;
    if (data.sent_us > 0) waitsUs.push(nowUs - data.sent_us);
    if (data.sleep_s > 0) {
      console.log("asleep");
      await sleep(data.sleep_s * 1000);
    }
    done += 1;
    if (done === expected) console.log(JSON.stringify({ first_us: firstUs, waits_us: waitsUs }));
  };
  // By default it would keep every completed job for ever.
  const worker = new Worker("bench", perform, { connection, concurrency, removeOnComplete: { count: 0 } });
  await worker.waitUntilReady();
  console.log("ready");
}

const clients = {
  async bulk(queue, jobs) {
    for (let sent = 0; sent < jobs; sent += 1000) {
      await queue.addBulk(Array.from({ length: Math.min(1000, jobs - sent) }, () => ({ name: "noop", data: args })));
    }
  },
  async singles(queue, jobs) {
    const client = async (first) => {
      for (let job = first; job < jobs; job += 50) await queue.add("noop", args);
    };
    await Promise.all(Array.from({ length: 50 }, (_, first) => client(first)));
  },
  async trickle(queue, jobs) {
    const beganUs = clockUs();
    for (let job = 0; job < jobs; job += 1) {
      await sleep(job * 10 - (clockUs() - beganUs) / 1000);
      await queue.add("noop", { ...args, sent_us: clockUs() });
    }
  },
  async sleepers(queue, jobs) {
    for (let job = 0; job < jobs; job += 1) await queue.add("noop", { ...args, sleep_s: 30 });
  },
};

async function main([verb, count, expected]) {
  if (verb === "work") return work(Number(count), Number(expected));
  const queue = new Queue("bench", { connection });
  await queue.waitUntilReady();
  const beganUs = clockUs();
  await clients[verb](queue, Number(count));
  console.log(JSON.stringify({ seconds: (clockUs() - beganUs) / 1e6 }));
  await queue.close();
}

main(process.argv.slice(2));
