// ioredis against one server. One line a check on stdout.

import Redis from 'ioredis';
import { check, cluster, equal, failover, host, key, name, port, proto, tableChecks, what } from './common.mjs';

function connect() {
  const options = { protocol: proto, retryStrategy: () => 50 };
  const client = cluster
    ? new Redis.Cluster([{ host, port }], { redisOptions: options, clusterRetryStrategy: () => 50 })
    : new Redis({ host, port, ...options });
  client.on('error', () => {}); // A lost connection is an event here; the calls that it fails are what we count.
  return client;
}

async function suite() {
  const client = connect();
  await tableChecks((_, args) => client.call(...args));

  await check('typed calls', async () => {
    equal(await client.set(key('s'), 'v', 'EX', 100), 'OK');
    equal(await client.get(key('s')), 'v');
    equal(await client.set(key('s'), 'w', 'NX'), null);
    const ttl = await client.ttl(key('s'));
    if (ttl < 98 || ttl > 100) throw new Error(`ttl ${ttl}`);
    await client.mset(key('m1'), '1', key('m2'), '2');
    equal(await client.mget(key('m1'), key('none'), key('m2')), ['1', null, '2']);
    equal(await client.incrby(key('n'), 42), 42);
    equal(await client.getdel(key('n')), '42');
    equal(await client.exists(key('n')), 0);
    equal(await client.del(key('s'), key('m1'), key('m2')), 3);
  });

  await check('a value of 1 MiB', async () => {
    const value = Buffer.alloc(1 << 20, 'tholos\r\n\0');
    await client.set(key('large'), value);
    equal(value.equals(await client.getBuffer(key('large'))), true);
    await client.del(key('large'));
  });

  await check('1000 commands in a pipeline, in order', async () => {
    // A pipeline of a cluster client must stay on one node, hence one slot.
    const pipeline = client.pipeline();
    for (let i = 0; i < 500; i += 1) pipeline.set(key(`p${i}`), `${i}`).get(key(`p${i}`));
    const replies = await pipeline.exec();
    equal(replies.filter((_, i) => i % 2).map(([error, value]) => error ?? value), Array.from({ length: 500 }, (_, i) => `${i}`));
  });

  await check('MULTI', async () => {
    const replies = await client.multi().set(key('t'), '1').incrby(key('t'), 41).get(key('t')).exec();
    equal(replies, [[null, 'OK'], [null, 42], [null, '42']]);
  });

  if (!cluster) {
    await check('WATCH', async () => {
      const other = connect();
      await other.watch(key('t'));
      await client.set(key('t'), 'changed');
      equal(await other.multi().set(key('t'), 'lost').exec(), null);
      equal(await client.get(key('t')), 'changed');
      await other.watch(key('t'));
      equal(await other.multi().set(key('t'), 'kept').exec(), [[null, 'OK']]);
      other.disconnect();
    });

    await check('SCAN finds all keys', async () => {
      const names = Array.from({ length: 300 }, (_, i) => `${name}:scan:${i}`).sort();
      await Promise.all(names.map((label) => client.set(label, 'x')));
      const found = new Set();
      for await (const keys of client.scanStream({ match: `${name}:scan:*`, count: 50 })) {
        keys.forEach((label) => found.add(label));
      }
      equal([...found].sort(), names);
    });

    await check('reconnects after CLIENT KILL', async () => {
      const victim = connect();
      const own = await victim.call('CLIENT', 'ID');
      await client.call('CLIENT', 'KILL', 'ID', own);
      let other = own;
      for (let tries = 0; tries < 50 && other === own; tries += 1) {
        other = await victim.call('CLIENT', 'ID').catch(() => own);
      }
      if (other === own) throw new Error('still the same connection');
      victim.disconnect();
    });
  }
  client.disconnect();
}

if (what === 'failover') {
  const client = connect();
  await failover((label, value) => client.set(label, value), (label) => client.get(label));
  client.disconnect();
} else {
  await suite();
}
process.exit(0);
