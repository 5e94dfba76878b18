-- One GET after another; with the environment variable KEYS (a file, a key a line) each with a key
-- drawn at random. The last line printed is for the scripts: numbers only, times in microseconds.
local requests = {}

function init()
  local file = os.getenv("KEYS")
  if file and file ~= "" then
    for key in io.lines(file) do
      requests[#requests + 1] = wrk.format("GET", "/", { ["X-API-Key"] = key })
    end
  else
    requests[1] = wrk.format("GET", "/")
  end
  math.randomseed(20260101)
end

function request()
  return requests[math.random(#requests)]
end

function done(summary, latency)
  local errors = summary.errors
  local lost = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), errors.status, lost))
end
