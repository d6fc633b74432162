// memcached with its defaults: it sends nothing on its own, over up to ten connections, many requests ahead of the replies.
import assert from 'node:assert/strict';
import { promisify } from 'node:util';
import { test } from 'node:test';
import Memcached from 'memcached';

const { MEMSTORE_HOST: host, MEMSTORE_MEMCACHE_PORT: port } = process.env;

async function withClient(use) {
  const client = new Memcached(`${host}:${port}`);
  const methods = ['get', 'gets', 'getMulti', 'set', 'add', 'replace', 'append', 'prepend', 'cas', 'incr', 'decr', 'touch', 'del',
    'flush', 'version', 'stats', 'settings'];
  try {
    await use(Object.fromEntries(methods.map((name) => [name, promisify(client[name]).bind(client)])));
  } finally {
    client.end();
  }
}

test('memcached: keys of all shards', () => withClient(async (client) => {
  const keys = Array.from({ length: 300 }, (_, number) => `node-memcached:${number}`);
  const values = Object.fromEntries(keys.map((key) => [key, `${key}!`]));
  assert.ok((await Promise.all(keys.map((key) => client.set(key, values[key], 0)))).every(Boolean));
  assert.deepEqual(await Promise.all(keys.map((key) => client.get(key))), Object.values(values));
  assert.deepEqual({ ...await client.getMulti([...keys, 'missing']) }, values);
  assert.deepEqual(await client.getMulti(['missing:1', 'missing:2']), {});
  assert.ok((await Promise.all(keys.slice(0, 200).map((key) => client.del(key)))).every(Boolean));
  assert.deepEqual(Object.keys(await client.getMulti(keys)), keys.slice(200));
}));

test('memcached: types', () => withClient(async (client) => {
  const values = { text: '…', empty: '', number: 42, json: { a: [1, null] }, lines: 'a\r\nEND\r\nb' };
  for (const [key, value] of Object.entries(values)) {
    assert.equal(await client.set(key, value, 100), true);
    assert.deepEqual(await client.get(key), value);
  }
  assert.equal(await client.get('missing'), undefined);
}));

test('memcached: changes', () => withClient(async (client) => {
  await client.del('change');
  await assert.rejects(client.replace('change', 'no', 0), /not stored/);
  await assert.rejects(client.append('change', 'no'), /not stored/);
  await assert.rejects(client.prepend('change', 'no'), /not stored/);
  assert.equal(await client.touch('change', 100), false);
  assert.equal(await client.del('change'), false);
  assert.equal(await client.add('change', 'b', 0), true);
  await assert.rejects(client.add('change', 'no', 0), /not stored/);
  assert.equal(await client.append('change', 'c'), true);
  assert.equal(await client.prepend('change', 'a'), true);
  assert.equal(await client.get('change'), 'abc');
  assert.equal(await client.replace('change', 'new', 100), true);
  assert.equal(await client.touch('change', 1000), true);
  const { cas, change } = await client.gets('change');
  assert.equal(change, 'new');
  assert.equal(await client.cas('change', 'newer', cas, 0), true);
  assert.equal(await client.cas('change', 'newest', cas, 0), false);
  assert.equal(await client.get('change'), 'newer');
}));

test('memcached: numbers', () => withClient(async (client) => {
  await client.del('number');
  assert.equal(await client.incr('number', 1), false);
  assert.equal(await client.set('number', '10', 0), true);
  assert.equal(await client.incr('number', 32), 42);
  assert.equal(await client.decr('number', 2), 40);
  assert.equal(await client.decr('number', 100), 0);
  await client.set('number', 'text', 0);
  await assert.rejects(client.incr('number', 1), /non-numeric/);
}));

test('memcached: large values', () => withClient(async (client) => {
  const large = Buffer.from(Array.from({ length: 675_000 }, (_, at) => at * at % 251)).toString('base64');
  const keys = Array.from({ length: 10 }, (_, number) => `large:${number}`);
  await Promise.all(keys.map((key) => client.set(key, large, 0)));
  const values = await client.getMulti(keys);
  assert.ok(keys.every((key) => values[key] === large));
  await Promise.all(keys.map((key) => client.del(key)));
}));

test('memcached: all shards', () => withClient(async (client) => {
  const keys = Array.from({ length: 100 }, (_, number) => `flush:${number}`);
  await Promise.all(keys.map((key) => client.set(key, 'v', 0)));
  assert.deepEqual(await client.flush(), [true]);
  assert.deepEqual(await client.getMulti(keys), {});
  assert.match((await client.version())[0].version, /^\d+\.\d+\.\d+$/);
}));

test('memcached: statistics', () => withClient(async (client) => {
  const [statistics] = await client.stats();
  assert.equal(statistics.pool, 'pool');
  assert.equal(statistics.shards, 3);
  const [settings] = [await client.settings()].flat();
  assert.ok(Number(settings.maxconns) > 0, 'what all servers say is said once');
}));
