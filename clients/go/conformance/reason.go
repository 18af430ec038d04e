package main

import (
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
)

// reason says why a call failed, with the facts; "" where it was not Weir that answered.
func reason(err error) (string, map[string]string) {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain == "weir" {
			return info.Reason, info.Metadata
		}
	}
	return "", nil
}
