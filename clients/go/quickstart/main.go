// One record in, all records out, with nothing but generated stubs: go run ./quickstart [HOST:PORT [TOPIC]]
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	weir "weir.dev/gen/weir/v1"
)

func main() {
	address, topic := "localhost:9347", "greetings"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	if len(os.Args) > 2 {
		topic = os.Args[2]
	}

	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	ctx := context.Background()
	records := []*weir.NewRecord{{Value: []byte("hello")}}
	_, err = weir.NewProducerServiceClient(conn).Produce(ctx, &weir.ProduceRequest{Topic: topic, Records: records})
	check(err)
	stream, err := weir.NewConsumerServiceClient(conn).Consume(ctx, &weir.ConsumeRequest{Topics: []string{topic}, UntilEnd: true})
	check(err)
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return
		}
		check(err)
		for _, record := range message.Records {
			fmt.Println(record.Offset, string(record.Value))
		}
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
