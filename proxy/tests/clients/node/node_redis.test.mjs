// node-redis with its defaults. It sends HELLO 3, CLIENT SETINFO twice and CLIENT MAINT_NOTIFICATIONS before anything else.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createClient, RESP_TYPES } from 'redis';

const { MEMSTORE_HOST: host, MEMSTORE_PORT: port, MEMSTORE_AUTH_PORT: authPort, MEMSTORE_PASSWORD: password } = process.env;
const binary = Buffer.concat([Buffer.from([...Array(256).keys()]), Buffer.from('\r\n$-1\r\n')]);

async function withClient(options, use) {
  const socket = { host, port: Number(port), reconnectStrategy: false, ...options.socket };
  const client = createClient({ ...options, socket });
  client.on('error', () => {}); // promises tell it as well
  await client.connect();
  try {
    await use(client);
  } finally {
    client.destroy();
  }
}

for (const options of [{}, { RESP: 2 }, { RESP: 3 }]) {
  const name = `node-redis ${JSON.stringify(options)}`;

  test(`${name}: keys of all shards`, () => withClient(options, async (client) => {
    const keys = Array.from({ length: 300 }, (_, number) => `node:${number}`);
    assert.equal(await client.mSet(keys.flatMap((key) => [key, `${key}!`])), 'OK');
    assert.deepEqual(await client.mGet([...keys, 'missing']), [...keys.map((key) => `${key}!`), null]);
    // Put into one pipeline by the client itself.
    assert.deepEqual(await Promise.all(keys.map((key) => client.get(key))), keys.map((key) => `${key}!`));
    assert.equal(await client.exists(keys), 300);
    assert.equal(await client.del(keys.slice(0, 200)), 200);
    assert.equal(await client.unlink(keys.slice(200, 250)), 50);
  }));

  test(`${name}: types`, () => withClient(options, async (client) => {
    await client.del(['hash', 'list', 'zset', 'set']);
    assert.equal(await client.hSet('hash', { f: 'v', n: 1 }), 2);
    assert.deepEqual({ ...await client.hGetAll('hash') }, { f: 'v', n: '1' });
    assert.equal(await client.rPush('list', ['a', 'b']), 2);
    assert.deepEqual(await client.lRange('list', 0, -1), ['a', 'b']);
    assert.equal(await client.zAdd('zset', [{ score: 1, value: 'a' }, { score: 2.5, value: 'b' }]), 2);
    assert.deepEqual(await client.zRangeWithScores('zset', 0, -1), [{ value: 'a', score: 1 }, { value: 'b', score: 2.5 }]);
    assert.equal(await client.zScore('zset', 'b'), 2.5);
    assert.equal(await client.sAdd('set', 'x'), 1);
    assert.deepEqual([...await client.sMembers('set')], ['x']);
    assert.equal(await client.set('fleeting', 'v', { EX: 100 }), 'OK');
    const left = await client.ttl('fleeting');
    assert.ok(left > 0 && left <= 100, `${left}`);
    assert.equal(await client.get('missing'), null);
    assert.deepEqual(await client.eval('return {KEYS[1], ARGV[1], 7}', { keys: ['k'], arguments: ['a'] }), ['k', 'a', 7]);
    const buffers = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
    await client.set('binary', binary);
    assert.deepEqual(await buffers.get('binary'), binary);
  }));

  test(`${name}: a thousand in one pipeline`, () => withClient(options, async (client) => {
    const pipeline = client.multi();
    for (let number = 0; number < 500; number += 1) pipeline.set(`pipe:${number}`, String(number));
    for (let number = 0; number < 500; number += 1) pipeline.get(`pipe:${number}`);
    const replies = await pipeline.execAsPipeline();
    assert.deepEqual(replies, [...Array(500).fill('OK'), ...Array.from({ length: 500 }, (_, number) => String(number))]);
  }));

  test(`${name}: transactions`, () => withClient(options, async (client) => {
    await client.del('{tx}untouched');
    const replies = await client.multi().set('{tx}touched', '1').incr('{tx}touched').get('{tx}untouched').exec();
    assert.deepEqual(replies, ['OK', 2, null]);
    const spread = client.multi().set('{tx}untouched', '1');
    for (let number = 0; number < 20; number += 1) spread.set(`tx:${number}`, String(number));
    await assert.rejects(spread.exec(), /EXECABORT|CROSSSLOT/);
    assert.equal(await client.get('{tx}untouched'), null);
  }));

  test(`${name}: keys that are watched`, () => withClient(options, async (client) => {
    const key = '{watch}node';
    await client.set(key, '1');
    await client.watch(key);
    const value = Number(await client.get(key));
    await withClient(options, (other) => other.incr(key));
    await assert.rejects(client.multi().set(key, String(value + 1)).exec(), /watch/i);
    await client.watch([key, '{watch}other']);
    assert.deepEqual(await client.multi().incr(key).exec(), [3]);
    await client.watch(key);
    assert.equal(await client.unwatch(), 'OK');
    assert.equal(await client.get(key), '3');
  }));

  test(`${name}: the connection itself`, () => withClient(options, async (client) => {
    assert.equal(await client.ping(), 'PONG');
    assert.equal(await client.echo('hello'), 'hello');
    assert.match(await client.info(), /redis_mode:standalone/);
    assert.equal(await client.clientSetName('tester'), 'OK');
    assert.equal(await client.clientGetName(), 'tester');
    assert.ok((await client.clientList()).some((each) => each.name === 'tester'));
    assert.ok(await client.clientId() > 0);
    assert.equal((await client.configGet('databases')).databases, '16');
    await assert.rejects(client.sendCommand(['NOSUCH']), /unknown command/);
    await assert.rejects(client.lPush('binary', 'x'), /WRONGTYPE/);
    assert.equal(await client.ping(), 'PONG');
  }));

  test(`${name}: databases`, () => withClient({ ...options, database: 4 }, async (client) => {
    await client.set('only here', 'v');
    assert.equal(await client.get('only here'), 'v');
    await client.select(0);
    assert.equal(await client.get('only here'), null);
  }));

  for (const user of [{}, { username: 'default' }]) {
    const guarded = { ...options, ...user, password, socket: { port: Number(authPort) } };
    test(`${name}: passwords ${JSON.stringify(user)}`, async () => {
      await withClient(guarded, async (client) => {
        const keys = Array.from({ length: 30 }, (_, number) => `auth:${number}`);
        await Promise.all(keys.map((key) => client.set(key, key)));
        assert.deepEqual(await client.mGet(keys), keys);
      });
      await assert.rejects(withClient({ ...guarded, password: 'wrong' }, async () => {}), /WRONGPASS/);
    });
  }
}

test('node-redis with a cache of its own', () => withClient({ RESP: 3 }, async (writer) => {
  const keys = Array.from({ length: 60 }, (_, number) => `node:cache:${number}`);
  await withClient({ RESP: 3, clientSideCache: { ttl: 0, maxEntries: 0, evictPolicy: 'LRU' } }, async (client) => {
    const becomes = async (key, value) => {
      const until = Date.now() + 10_000;
      while (await client.get(key) !== value) {
        assert.ok(Date.now() < until, key);
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    for (const key of keys) {
      await writer.set(key, 'old');
      await becomes(key, 'old');
      await writer.set(key, 'new');
      await becomes(key, 'new');
      await client.set(key, 'own');
      await becomes(key, 'own');
    }
    const processed = async () => Number(/total_commands_processed:(\d+)/.exec(await writer.info('stats'))[1]);
    await Promise.all(keys.map((key) => client.get(key)));
    const before = await processed();
    assert.deepEqual(await Promise.all(keys.map((key) => client.get(key))), keys.map(() => 'own'));
    assert.ok(await processed() - before < 10);
    await writer.del(keys);
    await becomes(keys[0], null);
  });
}));
