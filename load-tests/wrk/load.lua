-- One GET after another; with the environment variable KEYS or TOKENS (a file, a key or a token a
-- line) each with one that is drawn at random. The last line printed is for the scripts: numbers only, times in microseconds.
local requests = {}

function init()
  local function each(file, header, prefix)
    if file and file ~= "" then
      for word in io.lines(file) do
        requests[#requests + 1] = wrk.format("GET", "/", { [header] = prefix .. word })
      end
    end
  end
  each(os.getenv("KEYS"), "X-API-Key", "")
  each(os.getenv("TOKENS"), "Authorization", "Bearer ")
  if #requests == 0 then
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
