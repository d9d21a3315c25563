-- SPDX-License-Identifier: MIT
-- wrk ... URL -- HOST BODY: counts the answers that have not this body.
local threads = {}

function setup(thread)
	table.insert(threads, thread)
end

function init(args)
	wrk.headers["Host"] = args[1]
	expected = args[2]
	requests, wrong = 0, 0
end

function response(status, headers, body)
	requests = requests + 1
	if status ~= 200 or body ~= expected then
		wrong = wrong + 1
	end
end

function done(summary, latency, more)
	local requests, wrong = 0, 0
	for _, thread in ipairs(threads) do
		requests = requests + thread:get("requests")
		wrong = wrong + thread:get("wrong")
	end
	local e = summary.errors
	print(string.format("RESULT %d %d %d", requests, wrong,
		e.connect + e.read + e.write + e.status + e.timeout))
end
