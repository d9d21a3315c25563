// SPDX-License-Identifier: MIT
// A Node server: n bytes, 32-bit little-endian numbers counting up, by res.end() in one.
const http = require('http');

http.createServer((request, response) => {
	const size = Number(new URL(request.url, 'http://node').searchParams.get('n'));
	const body = Buffer.alloc(size);
	for (let i = 0; i < size; i += 4)
		body.writeUInt32LE(i / 4, i);
	response.end(body);
}).listen(3000);
