// go-redis, rueidis or valkey-go with its cache: what it reads, again and again, for ../../caches/test.py.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/valkey-io/valkey-go"
	"golang.org/x/sys/unix"
)

const missing = "-1"

// The value of a key, missing if there is none.
type reader func(ctx context.Context, key string) (string, error)

func goRedis(address string) (reader, error) {
	client := redis.NewClient(&redis.Options{Addr: address, ClientSideCacheConfig: &redis.ClientSideCacheConfig{}})
	return func(ctx context.Context, key string) (string, error) {
		value, err := client.Get(ctx, key).Result()
		if err == redis.Nil {
			return missing, nil
		}
		return value, err
	}, nil
}

func rueidisClient(address string) (reader, error) {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{address}})
	return func(ctx context.Context, key string) (string, error) {
		value, err := client.DoCache(ctx, client.B().Get().Key(key).Cache(), time.Hour).ToString()
		if rueidis.IsRedisNil(err) {
			return missing, nil
		}
		return value, err
	}, err
}

func valkeyGo(address string) (reader, error) {
	client, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{address}})
	return func(ctx context.Context, key string) (string, error) {
		value, err := client.DoCache(ctx, client.B().Get().Key(key).Cache(), time.Hour).ToString()
		if valkey.IsValkeyNil(err) {
			return missing, nil
		}
		return value, err
	}, err
}

// The clock that all processes share.
func now() int64 {
	var time unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &time); err != nil {
		panic(err)
	}
	return time.Nano()
}

func main() {
	open := map[string]func(string) (reader, error){"go-redis": goRedis, "rueidis": rueidisClient, "valkey-go": valkeyGo}[os.Args[1]]
	count, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	var ended = make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	var told sync.Mutex
	output := bufio.NewWriter(os.Stdout)
	var readers sync.WaitGroup
	for _, target := range os.Args[3:] {
		name, address, _ := strings.Cut(target, "=")
		readers.Go(func() { read(name, address, count, open, ended, &told, output) })
	}
	readers.Wait()
	output.Flush()
}

func read(target, address string, count int, open func(string) (reader, error), ended chan struct{}, told *sync.Mutex, output *bufio.Writer) {
	get, err := open(address)
	if err != nil {
		panic(err)
	}
	versions, last := make([]string, count), make([]int64, count)
	errors := 0
	for passes := 0; ; passes++ {
		told.Lock()
		if passes%10 == 0 {
			fmt.Fprintln(output, "passes", target, passes, errors, err)
		}
		output.Flush()
		told.Unlock()
		select {
		case <-ended:
			told.Lock()
			defer told.Unlock()
			for number := range count {
				fmt.Fprintln(output, "read", target, number, "end", now(), last[number])
			}
			return
		case <-time.After(5 * time.Millisecond):
		}
		for number := range count {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			begin := now()
			value, failed := get(ctx, fmt.Sprint(number, ":cached"))
			cancel()
			if failed != nil {
				errors, err = errors+1, failed
				continue
			}
			if value != versions[number] {
				told.Lock()
				fmt.Fprintln(output, "read", target, number, value, begin, last[number])
				told.Unlock()
			}
			versions[number], last[number] = value, begin
		}
	}
}
