// ClusterClient of go-redis with its defaults, where the proxy poses as a cluster: over plain shards, and over a Redis Cluster.
package clients

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func each(t *testing.T, use func(t *testing.T, ctx context.Context, client *redis.ClusterClient)) {
	for over, variable := range map[string]string{
		"plain shards": "MEMSTORE_FACADE_PORT",
		"a cluster":    "MEMSTORE_FACADE_CLUSTER_PORT",
	} {
		t.Run(over, func(t *testing.T) {
			address := os.Getenv("MEMSTORE_HOST") + ":" + os.Getenv(variable)
			for _, options := range []*redis.ClusterOptions{
				{Addrs: []string{address}},
				{Addrs: []string{address}, RouteRandomly: true},
			} {
				client := redis.NewClusterClient(options)
				defer client.Close()
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				defer cancel()
				use(t, ctx, client)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestKeysOfAllSlots(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, client *redis.ClusterClient) {
		for number := range 300 {
			key := fmt.Sprint("gocluster:", number)
			must(t, client.Set(ctx, key, number, 0).Err())
			value, err := client.Get(ctx, key).Int()
			must(t, err)
			if value != number {
				t.Fatal(key, value)
			}
		}
		count, err := client.DBSize(ctx).Result()
		must(t, err)
		if count < 300 {
			t.Fatal(count)
		}
	})
}

func TestPipelines(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, client *redis.ClusterClient) {
		replies, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for number := range 200 {
				pipe.Set(ctx, fmt.Sprint("gopipe:", number), number, 0)
			}
			return nil
		})
		must(t, err)
		if len(replies) != 200 {
			t.Fatal(len(replies))
		}
		_, err = client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
			pipe.Set(ctx, "{gotx}a", 1, 0)
			pipe.Incr(ctx, "{gotx}a")
			return nil
		})
		must(t, err)
		must(t, client.Watch(ctx, func(tx *redis.Tx) error {
			_, err := tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
				pipe.Incr(ctx, "{gotx}a")
				return nil
			})
			return err
		}, "{gotx}a"))
		value, err := client.Get(ctx, "{gotx}a").Int()
		must(t, err)
		if value != 3 {
			t.Fatal(value)
		}
	})
}

func TestChannels(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, client *redis.ClusterClient) {
		for _, listener := range []*redis.PubSub{client.Subscribe(ctx, "gochannel"), client.SSubscribe(ctx, "gochannel")} {
			defer listener.Close()
			_, err := listener.Receive(ctx)
			must(t, err)
			must(t, client.Publish(ctx, "gochannel", "hello").Err())
			must(t, client.SPublish(ctx, "gochannel", "hello").Err())
			message, err := listener.ReceiveMessage(ctx)
			must(t, err)
			if message.Payload != "hello" {
				t.Fatal(message)
			}
		}
	})
}
