// SPDX-License-Identifier: MIT

// A Go server: net/http, large files by sendfile(2). `lib_app ADDRESS`; see lib_app.py.
package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
)

func file(w http.ResponseWriter, r *http.Request) {
	name := "/files" + r.URL.Path
	if stat, err := os.Stat(name); err != nil || stat.Size() > 100000 {
		http.ServeFile(w, r, name)
		return
	}
	body, err := os.ReadFile(name)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

func up(w http.ResponseWriter, r *http.Request) {
	digest := sha256.New()
	if _, err := io.Copy(digest, r.Body); err == nil {
		fmt.Fprintf(w, "%x", digest.Sum(nil))
	}
}

func main() {
	http.HandleFunc("/", file)
	http.HandleFunc("/up", up)
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
