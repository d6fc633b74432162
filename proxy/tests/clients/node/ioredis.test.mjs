// ioredis with its defaults. It sends HELLO 3, CLIENT SETINFO twice and INFO, whose "loading" it wants to know.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Redis } from 'ioredis';

const { MEMSTORE_HOST: host, MEMSTORE_PORT: port, MEMSTORE_AUTH_PORT: authPort, MEMSTORE_PASSWORD: password } = process.env;
const binary = Buffer.concat([Buffer.from([...Array(256).keys()]), Buffer.from('\r\n$-1\r\n')]);

async function withClient(options, use) {
  const client = new Redis({ host, port: Number(port), retryStrategy: null, ...options });
  client.on('error', () => {}); // promises tell it as well
  try {
    await use(client);
  } finally {
    client.disconnect();
  }
}

test('ioredis: keys of all shards', () => withClient({}, async (client) => {
  const keys = Array.from({ length: 300 }, (_, number) => `ioredis:${number}`);
  assert.equal(await client.mset(keys.flatMap((key) => [key, `${key}!`])), 'OK');
  assert.deepEqual(await client.mget([...keys, 'missing']), [...keys.map((key) => `${key}!`), null]);
  assert.deepEqual(await Promise.all(keys.map((key) => client.get(key))), keys.map((key) => `${key}!`));
  assert.equal(await client.exists(...keys), 300);
  assert.equal(await client.del(...keys.slice(0, 200)), 200);
}));

test('ioredis: types', () => withClient({}, async (client) => {
  await client.del('hash', 'list', 'zset', 'set');
  assert.equal(await client.hset('hash', { f: 'v', n: 1 }), 2);
  assert.deepEqual({ ...await client.hgetall('hash') }, { f: 'v', n: '1' });
  assert.equal(await client.rpush('list', 'a', 'b'), 2);
  assert.deepEqual(await client.lrange('list', 0, -1), ['a', 'b']);
  assert.equal(await client.zadd('zset', 1, 'a', 2.5, 'b'), 2);
  assert.deepEqual((await client.zrange('zset', 0, -1, 'WITHSCORES')).flat().map(String), ['a', '1', 'b', '2.5']);
  assert.equal(await client.sadd('set', 'x'), 1);
  assert.deepEqual([...await client.smembers('set')], ['x']);
  assert.equal(await client.set('fleeting', 'v', 'EX', 100), 'OK');
  const left = await client.ttl('fleeting');
  assert.ok(left > 0 && left <= 100, `${left}`);
  assert.deepEqual(await client.eval('return {KEYS[1], ARGV[1], 7}', 1, 'k', 'a'), ['k', 'a', 7]);
  await client.set(binary, binary);
  assert.deepEqual(await client.getBuffer(binary), binary);
}));

// It calls EVALSHA first and EVAL when it hears NOSCRIPT.
test('ioredis: a script as a command', () => withClient({}, async (client) => {
  client.defineCommand('twice', { numberOfKeys: 1, lua: 'return {KEYS[1], KEYS[1]}' });
  for (let number = 0; number < 30; number += 1) {
    assert.deepEqual(await client.twice(`k${number}`), [`k${number}`, `k${number}`]);
  }
}));

test('ioredis: a thousand in one pipeline', () => withClient({}, async (client) => {
  const pipeline = client.pipeline();
  for (let number = 0; number < 500; number += 1) pipeline.set(`pipe:${number}`, number);
  for (let number = 0; number < 500; number += 1) pipeline.get(`pipe:${number}`);
  const replies = await pipeline.exec();
  assert.deepEqual(replies.slice(0, 500), Array(500).fill([null, 'OK']));
  assert.deepEqual(replies.slice(500), Array.from({ length: 500 }, (_, number) => [null, String(number)]));
}));

test('ioredis: transactions', () => withClient({}, async (client) => {
  await client.del('{tx}untouched');
  const replies = await client.multi().set('{tx}touched', 1).incr('{tx}touched').get('{tx}untouched').exec();
  assert.deepEqual(replies, [[null, 'OK'], [null, 2], [null, null]]);
  const spread = client.multi().set('{tx}untouched', 1);
  for (let number = 0; number < 20; number += 1) spread.set(`tx:${number}`, number);
  await assert.rejects(spread.exec(), /EXECABORT/);
  assert.equal(await client.get('{tx}untouched'), null);
}));

test('ioredis: keys that are watched', () => withClient({}, async (client) => {
  const key = '{watch}ioredis';
  await client.set(key, 1);
  await client.watch(key);
  const value = Number(await client.get(key));
  await withClient({}, (other) => other.incr(key));
  assert.equal(await client.multi().set(key, value + 1).exec(), null);
  await client.watch(key, '{watch}other');
  assert.deepEqual(await client.multi().incr(key).exec(), [[null, 3]]);
  assert.equal(await client.unwatch(), 'OK');
  assert.equal(await client.get(key), '3');
}));

test('ioredis: the connection itself', () => withClient({ connectionName: 'tester' }, async (client) => {
  assert.equal(await client.ping(), 'PONG');
  assert.match(await client.info('server'), /redis_version:/);
  assert.equal(await client.client('GETNAME'), 'tester');
  assert.match(await client.client('LIST'), /name=tester .*lib-name=ioredis/);
  await assert.rejects(client.call('NOSUCH'), /unknown command/);
  assert.equal(await client.quit(), 'OK');
}));

test('ioredis: databases', () => withClient({ db: 4 }, async (client) => {
  await client.set('only there', 'v');
  assert.equal(await client.get('only there'), 'v');
  await client.select(0);
  assert.equal(await client.get('only there'), null);
}));

for (const user of [{}, { username: 'default' }]) {
  test(`ioredis: passwords ${JSON.stringify(user)}`, async () => {
    const guarded = { port: Number(authPort), password, ...user };
    await withClient(guarded, async (client) => {
      const keys = Array.from({ length: 30 }, (_, number) => `auth:${number}`);
      await Promise.all(keys.map((key) => client.set(key, key)));
      assert.deepEqual(await client.mget(keys), keys);
    });
    await withClient({ ...guarded, password: 'wrong' }, async (client) => {
      await assert.rejects(client.get('x'), /WRONGPASS|NOAUTH/);
    });
  });
}
