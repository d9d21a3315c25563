// SPDX-License-Identifier: MIT
// A Node server as many are: res.end() with all of it. See lib_app.py.
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');

http.createServer((request, response) => {
	if (request.method === 'GET') {
		response.end(fs.readFileSync('/files' + request.url));
		return;
	}
	const hash = crypto.createHash('sha256');
	request.on('data', (piece) => hash.update(piece));
	request.on('end', () => response.end(hash.digest('hex')));
}).listen(Number(process.argv[2]));
