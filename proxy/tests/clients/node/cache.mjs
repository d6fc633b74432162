// node-redis with its cache: what it reads, again and again, for ../caches/test.py.
import { BasicClientSideCache, createClient } from 'redis';

const now = () => process.hrtime.bigint();
let ended = false;
process.stdin.resume();
process.stdin.on('end', () => { ended = true; });

// Where a server says that all keys are invalid, 6.3.1 forgets what it has, and yet keeps the value of a reply that came right before that: for ever,
// as the server does not know it to be there. So it is with a plain server and FLUSHALL.
class Cache extends BasicClientSideCache {
  clear(...options) {
    for (const [, entry] of this.entryEntries()) entry.invalidate();
    super.clear(...options);
  }
}

async function read(target, address, count) {
  const [host, port] = address.split(':');
  const client = createClient({ socket: { host, port: Number(port) }, clientSideCache: new Cache({ ttl: 0, maxEntries: 0, evictPolicy: 'LRU' }) });
  client.on('error', () => {}); // promises tell it as well
  await client.connect();
  const versions = Array(count), last = Array(count).fill(0n);
  let errors = 0, error;
  for (let passes = 0; !ended; passes += 1) {
    const told = [];
    if (passes % 10 === 0) told.push(`passes ${target} ${passes} ${errors} ${error}`);
    for (let number = 0; number < count; number += 1) {
      const begin = now();
      let value;
      try {
        value = await client.get(`${number}:cached`) ?? '-1';
      } catch (failed) {
        errors += 1;
        error = failed;
        continue;
      }
      if (value !== versions[number]) told.push(`read ${target} ${number} ${value} ${begin} ${last[number]}`);
      versions[number] = value;
      last[number] = begin;
    }
    if (told.length) process.stdout.write(`${told.join('\n')}\n`);
    await new Promise((resolve) => { setTimeout(resolve, 5); });
  }
  process.stdout.write(last.map((time, number) => `read ${target} ${number} end ${now()} ${time}\n`).join(''));
  client.destroy();
}

const [count, ...targets] = process.argv.slice(2);
await Promise.all(targets.map((target) => read(...target.split('='), Number(count))));
