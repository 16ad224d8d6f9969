// kafkajs.
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = require('kafkajs')
const readline = require('readline')
const SnappyCodec = require('kafkajs-snappy')
const lz4 = require('lz4js')
const { ZstdCodec } = require('zstd-codec')
CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
CompressionCodecs[CompressionTypes.LZ4] = () => ({ compress: async e => Buffer.from(lz4.compress(e.buffer)), decompress: async b => Buffer.from(lz4.decompress(b)) })
const zstd = new Promise(done => ZstdCodec.run(z => done(new z.Streaming())))
CompressionCodecs[CompressionTypes.ZSTD] = () => ({ compress: async e => Buffer.from((await zstd).compress(e.buffer)), decompress: async b => Buffer.from((await zstd).decompress(b)) })

const boot = process.argv[2]
const kafka = new Kafka({ brokers: [boot], clientId: 'interop-js', logLevel: logLevel.NOTHING, retry: { initialRetryTime: 50, retries: 20 } })
const topic = 'i-kafkajs', groups = 'g-kafkajs'
const CODECS = [CompressionTypes.None, CompressionTypes.GZIP, CompressionTypes.Snappy, CompressionTypes.LZ4, CompressionTypes.ZSTD]
const PER_CODEC = 40, PARTITIONS = 6, RECORDS = 600
const BASE = Date.now() - 3600000
const step = name => console.log('ok ' + name)
const fail = what => { console.log('FAILED ' + what); process.exit(1) }
const same = (name, got, wanted) => { if (JSON.stringify(got) !== JSON.stringify(wanted)) fail(`${name}: got ${JSON.stringify(got).slice(0, 300)} wanted ${JSON.stringify(wanted).slice(0, 300)}`) }
const sleep = ms => new Promise(r => setTimeout(r, ms))
const until = async (what, condition) => { const end = Date.now() + 60000; while (!condition()) { if (Date.now() > end) fail(what + ': not within 60 s'); await sleep(20) } }
const record = i => ({ key: i % 10 === 9 ? null : `k${i}`, value: `value ${i} `.repeat(i % 7 === 6 ? 2000 : 3), headers: { n: String(i), empty: '' }, timestamp: String(BASE + i) })
const lines = readline.createInterface({ input: process.stdin })
const restart = () => new Promise(done => { lines.once('line', l => l.trim() === 'restarted' ? done() : fail('restart')); console.log('restart') })
const text = b => b === null || b === undefined ? null : b.toString()

const read = async (count, group = 'rjs' + Math.random()) => {
  const c = kafka.consumer({ groupId: group }), out = []
  await c.connect(); await c.subscribe({ topics: [topic], fromBeginning: true })
  await c.run({ autoCommit: false, eachMessage: async ({ message: m }) => { out.push([Number(m.offset), { key: text(m.key), value: text(m.value), headers: Object.fromEntries(Object.entries(m.headers).map(([k, v]) => [k, text(v)])), timestamp: m.timestamp }]) } })
  await until('records', () => out.length >= count)
  await c.disconnect()
  return out
}

const main = async () => {
  const admin = kafka.admin(); await admin.connect()
  await admin.createTopics({ topics: [{ topic, numPartitions: 1, configEntries: [{ name: 'retention.ms', value: '86400000' }] }, { topic: groups, numPartitions: PARTITIONS - 1 }] })
  await admin.createPartitions({ topicPartitions: [{ topic: groups, count: PARTITIONS }] })
  const described = await admin.describeConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }] })
  const entry = name => described.resources[0].configEntries.find(e => e.configName === name)
  same('configs', [entry('retention.ms').configValue, entry('cleanup.policy').isDefault], ['86400000', true])
  await admin.alterConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name: 'segment.bytes', value: '1048576' }] }] })
  same('partitions', (await admin.fetchTopicMetadata({ topics: [groups] })).topics[0].partitions.length, PARTITIONS)
  step('admin')

  let p = kafka.producer({ allowAutoTopicCreation: false }); await p.connect()
  for (const [c, compression] of CODECS.entries()) {
    const messages = [...Array(PER_CODEC).keys()].map(i => record(c * PER_CODEC + i))
    const [sent] = await p.send({ topic, messages, compression, acks: -1 })
    same('produce', [sent.errorCode, Number(sent.baseOffset)], [0, c * PER_CODEC])
  }
  const total = PER_CODEC * CODECS.length
  same('records', await read(total), [...Array(total).keys()].map(i => [i, record(i)]))
  step('every codec, headers and timestamps')
  same('offset by time', (await admin.fetchTopicOffsetsByTimestamp(topic, BASE + 77))[0].offset, '77')
  step('seek by time')
  await admin.setOffsets({ groupId: 'resume-js', topic, partitions: [{ partition: 0, offset: '120' }] })
  const resumed = []
  const r = kafka.consumer({ groupId: 'resume-js' })
  await r.connect(); await r.subscribe({ topics: [topic] }); await r.run({ eachMessage: async ({ message }) => { resumed.push(Number(message.offset)) } })
  await until('resume', () => resumed.length > 0); await r.disconnect()
  same('resume', resumed[0], 120)
  step('commit and resume')

  const seen = new Map(), had = [false, false, false]
  const members = await Promise.all([0, 1, 2].map(async n => {
    const c = kafka.consumer({ groupId: 'three-js', sessionTimeout: 6000, heartbeatInterval: 300, rebalanceTimeout: 10000 })
    c.on(c.events.GROUP_JOIN, e => { had[n] = had[n] || Object.values(e.payload.memberAssignment).some(a => a.length > 0) })
    await c.connect(); await c.subscribe({ topics: [groups], fromBeginning: true })
    await c.run({ eachMessage: async ({ partition, message }) => { seen.set(`${partition}:${message.offset}`, Number(message.value.toString())) } })
    return c
  }))
  await until('three members with partitions', () => had.every(x => x))
  const spread = (from, count) => [...Array(count).keys()].map(i => ({ value: String(from + i), partition: i % PARTITIONS }))
  await p.send({ topic: groups, messages: spread(0, RECORDS) })
  await until('all of the group', () => seen.size === RECORDS)
  await members[2].disconnect()
  await p.send({ topic: groups, messages: spread(RECORDS, 60) })
  await until('all after one left', () => seen.size === RECORDS + 60)
  same('each record once', [...seen.values()].sort((a, b) => a - b), [...Array(RECORDS + 60).keys()])
  await Promise.all(members.slice(0, 2).map(m => m.disconnect()))
  step('group of three with a rebalance')

  await p.send({ topic, messages: [...Array(20).keys()].map(i => record(total + i)) })
  await restart()
  await p.send({ topic, messages: [...Array(30).keys()].map(i => record(total + 20 + i)) })
  same('records after a restart', await read(total + 50), [...Array(total + 50).keys()].map(i => [i, record(i)]))
  step('broker restart in the middle')
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '100' }] })
  same('low watermark', (await admin.fetchTopicOffsets(topic))[0].low, '100')
  await admin.deleteGroups(['three-js'])
  await admin.deleteTopics({ topics: [topic, groups] })
  step('delete records, groups and topics')
  await p.disconnect(); await admin.disconnect(); lines.close()
  process.exit(0)
}
main().catch(e => fail(e.stack || e))
