-- SPDX-License-Identifier: MIT
-- The numbers that wrk does not print, in one line: requests, bytes, microseconds, errors, and of the
-- latency the 50th, 99th and 99.9th percentile in microseconds.
function done(summary, latency, requests)
	local e = summary.errors
	print(string.format("RESULT %d %d %d %d %d %d %d", summary.requests, summary.bytes,
		summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
		latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
