// node-redis against one server. One line a check on stdout.

import { createClient, createCluster, WatchError } from 'redis';
import { check, cluster, equal, failover, host, key, name, port, proto, tableChecks, what } from './common.mjs';

async function connect() {
  const url = `redis://${host}:${port}`;
  const client = cluster
    ? createCluster({ rootNodes: [{ url }], RESP: proto, defaults: { socket: { reconnectStrategy: 50 } } })
    : createClient({ url, RESP: proto, socket: { reconnectStrategy: 50 } });
  client.on('error', () => {}); // A lost connection is an event here; the calls that it fails are what we count.
  await client.connect();
  return client;
}

async function suite() {
  const client = await connect();
  await tableChecks((firstKey, args) =>
    cluster ? client.sendCommand(firstKey, false, args) : client.sendCommand(args),
  );

  await check('typed calls', async () => {
    equal(await client.set(key('s'), 'v', { expiration: { type: 'EX', value: 100 } }), 'OK');
    equal(await client.get(key('s')), 'v');
    equal(await client.set(key('s'), 'w', { condition: 'NX' }), null);
    const ttl = await client.ttl(key('s'));
    if (ttl < 98 || ttl > 100) throw new Error(`ttl ${ttl}`);
    await client.mSet([[key('m1'), '1'], [key('m2'), '2']]);
    equal(await client.mGet([key('m1'), key('none'), key('m2')]), ['1', null, '2']);
    equal(await client.incrBy(key('n'), 42), 42);
    equal(await client.getDel(key('n')), '42');
    equal(await client.exists(key('n')), 0);
    equal(await client.del([key('s'), key('m1'), key('m2')]), 3);
  });

  await check('a value of 1 MiB', async () => {
    const value = 'tholos! '.repeat(131072);
    await client.set(key('large'), value);
    equal((await client.get(key('large'))) === value, true);
    await client.del(key('large'));
  });

  await check('1000 commands in a pipeline, in order', async () => {
    const replies = await Promise.all(
      Array.from({ length: 1000 }, async (_, i) => {
        await client.set(`${name}:p${i}`, `${i}`);
        return client.get(`${name}:p${i}`);
      }),
    );
    equal(replies, Array.from({ length: 1000 }, (_, i) => `${i}`));
  });

  await check('MULTI', async () => {
    const replies = await client.multi().set(key('t'), '1').incrBy(key('t'), 41).get(key('t')).exec();
    equal(replies, ['OK', 42, '42']);
  });

  if (!cluster) {
    await check('WATCH', async () => {
      const other = await connect();
      await other.watch(key('t'));
      await client.set(key('t'), 'changed');
      let refused = false;
      await other.multi().set(key('t'), 'lost').exec().catch((error) => {
        refused = error instanceof WatchError;
      });
      equal(refused, true, 'refused');
      equal(await client.get(key('t')), 'changed');
      other.destroy();
    });

    await check('SCAN finds all keys', async () => {
      const names = Array.from({ length: 300 }, (_, i) => `${name}:scan:${i}`).sort();
      await Promise.all(names.map((label) => client.set(label, 'x')));
      const found = new Set();
      for await (const keys of client.scanIterator({ MATCH: `${name}:scan:*`, COUNT: 50 })) {
        [keys].flat().forEach((label) => found.add(label));
      }
      equal([...found].sort(), names);
    });

    await check('reconnects after CLIENT KILL', async () => {
      const victim = await connect();
      const own = await victim.sendCommand(['CLIENT', 'ID']);
      await client.sendCommand(['CLIENT', 'KILL', 'ID', String(own)]);
      let other = own;
      for (let tries = 0; tries < 50 && other === own; tries += 1) {
        other = await victim.sendCommand(['CLIENT', 'ID']).catch(() => own);
      }
      if (other === own) throw new Error('still the same connection');
      victim.destroy();
    });
  }
  client.destroy();
}

if (what === 'failover') {
  const client = await connect();
  await failover((label, value) => client.set(label, value), (label) => client.get(label));
  client.destroy();
} else {
  await suite();
}
process.exit(0);
