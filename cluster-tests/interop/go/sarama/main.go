// sarama.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	. "callboard.test/interop/scene"
	"github.com/IBM/sarama"
)

const topic, groups = "i-sarama", "g-sarama"

var boot = os.Args[1:2]

func config() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.V3_6_0_0
	c.Producer.Return.Successes = true
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Retry.Max, c.Producer.Retry.Backoff = 100, 100*time.Millisecond
	c.Metadata.Retry.Max = 50
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Group.Session.Timeout, c.Consumer.Group.Heartbeat.Interval = 6*time.Second, 300*time.Millisecond
	return c
}

func rec(i int) *sarama.ProducerMessage {
	r := Of(i)
	m := &sarama.ProducerMessage{Topic: topic, Value: sarama.ByteEncoder(r.Value), Timestamp: r.Time, Headers: []sarama.RecordHeader{{Key: []byte("n"), Value: []byte(strconv.Itoa(i))}, {Key: []byte("empty"), Value: []byte{}}}}
	if r.Key != nil {
		m.Key = sarama.ByteEncoder(r.Key)
	}
	return m
}

func readAll(count int) {
	c, err := sarama.NewConsumer(boot, config())
	Must(err, "consumer")
	p, err := c.ConsumePartition(topic, 0, sarama.OffsetOldest)
	Must(err, "partition")
	for i := range count {
		select {
		case m := <-p.Messages():
			Check(i, m.Offset, m.Key, m.Value, m.Timestamp, string(m.Headers[0].Value))
		case <-time.After(30 * time.Second):
			Fail("record %d does not come", i)
		}
	}
	Must(p.Close(), "close")
	Must(c.Close(), "close")
}

type member struct {
	lock *sync.Mutex
	seen map[string]string
	had  *bool
}

func (m member) Setup(s sarama.ConsumerGroupSession) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	*m.had = *m.had || len(s.Claims()[groups]) > 0
	return nil
}
func (m member) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (m member) ConsumeClaim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	for {
		select {
		case r, open := <-c.Messages():
			if !open {
				return nil
			}
			m.lock.Lock()
			m.seen[fmt.Sprint(r.Partition, ":", r.Offset)] = string(r.Value)
			m.lock.Unlock()
			s.MarkMessage(r, "")
		case <-s.Context().Done():
			return nil
		}
	}
}

func main() {
	adm, err := sarama.NewClusterAdmin(boot, config())
	Must(err, "admin")
	day, mib := "86400000", "1048576"
	Must(adm.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1, ConfigEntries: map[string]*string{"retention.ms": &day}}, false), "create")
	Must(adm.CreateTopic(groups, &sarama.TopicDetail{NumPartitions: Partitions - 1, ReplicationFactor: 1}, false), "create")
	Must(adm.CreatePartitions(groups, Partitions, nil, false), "grow")
	Must(adm.IncrementalAlterConfig(sarama.TopicResource, topic, map[string]sarama.IncrementalAlterConfigsEntry{"segment.bytes": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &mib}}, false), "alter")
	entries, err := adm.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic})
	Must(err, "describe")
	found := map[string]string{}
	for _, e := range entries {
		found[e.Name] = e.Value
	}
	Same("configs", found["retention.ms"]+" "+found["segment.bytes"]+" "+found["cleanup.policy"], "86400000 1048576 delete")
	Step("admin")

	for n, codec := range []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD} {
		c := config()
		c.Producer.Compression = codec
		c.Producer.Idempotent, c.Net.MaxOpenRequests = true, 1
		p, err := sarama.NewSyncProducer(boot, c)
		Must(err, "producer")
		var all []*sarama.ProducerMessage
		for i := n * PerCodec; i < (n+1)*PerCodec; i++ {
			all = append(all, rec(i))
		}
		Must(p.SendMessages(all), "produce")
		Must(p.Close(), "close")
	}
	readAll(Total)
	Step("every codec, headers and timestamps")
	client, err := sarama.NewClient(boot, config())
	Must(err, "client")
	at, err := client.GetOffset(topic, 0, Base.UnixMilli()+77)
	Must(err, "by time")
	Same("offset by time", at, 77)
	Step("seek by time")
	om, err := sarama.NewOffsetManagerFromClient("r-sarama", client)
	Must(err, "offsets")
	pom, err := om.ManagePartition(topic, 0)
	Must(err, "offsets")
	pom.MarkOffset(120, "a note")
	om.Commit()
	Must(pom.Close(), "close")
	Must(om.Close(), "close")
	listed, err := adm.ListConsumerGroupOffsets("r-sarama", map[string][]int32{topic: {0}})
	Must(err, "committed")
	Same("committed", fmt.Sprint(listed.GetBlock(topic, 0).Offset, listed.GetBlock(topic, 0).Metadata), "120a note")
	Step("commit and resume")

	var lock sync.Mutex
	seen, had := map[string]string{}, [3]bool{}
	var stops [3]context.CancelFunc
	var done [3]sync.WaitGroup
	for n := range stops {
		ctx, cancel := context.WithCancel(context.Background())
		stops[n] = cancel
		g, err := sarama.NewConsumerGroup(boot, "three-sarama", config())
		Must(err, "group")
		done[n].Add(1)
		go func() {
			defer done[n].Done()
			for ctx.Err() == nil {
				_ = g.Consume(ctx, []string{groups}, member{&lock, seen, &had[n]})
			}
			_ = g.Close()
		}()
	}
	count := func() int { lock.Lock(); defer lock.Unlock(); return len(seen) }
	Wait("three members with partitions", func() bool { lock.Lock(); defer lock.Unlock(); return had[0] && had[1] && had[2] })
	c := config()
	c.Producer.Partitioner = sarama.NewManualPartitioner
	p, err := sarama.NewSyncProducer(boot, c)
	Must(err, "producer")
	send := func(from, n int) {
		var all []*sarama.ProducerMessage
		for i := range n {
			all = append(all, &sarama.ProducerMessage{Topic: groups, Partition: int32(i % Partitions), Value: sarama.StringEncoder(strconv.Itoa(from + i))})
		}
		Must(p.SendMessages(all), "produce")
	}
	send(0, Records)
	Wait("all of the group", func() bool { return count() == Records })
	stops[2]()
	done[2].Wait()
	send(Records, 60)
	Wait("all after one left", func() bool { return count() == Records+60 })
	for n := range 2 {
		stops[n]()
		done[n].Wait()
	}
	values := map[string]bool{}
	for _, v := range seen {
		values[v] = true
	}
	Same("each record once", len(values), Records+60)
	Step("group of three with a rebalance")

	q, err := sarama.NewSyncProducer(boot, config())
	Must(err, "producer")
	for i := Total; i < Total+50; i++ {
		_, _, err := q.SendMessage(rec(i))
		Must(err, "produce over a restart")
		if i == Total+20 {
			Restart()
		}
	}
	readAll(Total + 50)
	Step("broker restart in the middle")
	Must(adm.DeleteRecords(topic, map[int32]int64{0: 100}), "delete records")
	oldest, err := client.GetOffset(topic, 0, sarama.OffsetOldest)
	Must(err, "oldest")
	Same("low watermark", oldest, 100)
	Must(adm.DeleteConsumerGroup("three-sarama"), "delete group")
	Must(adm.DeleteTopic(topic), "delete")
	Must(adm.DeleteTopic(groups), "delete")
	Step("delete records, groups and topics")
}
