// A constant rate of requests, each with a key drawn at random where there are keys: the latency that users
// see, with the time that a request waits to be sent. Run by peers.sh.
import http from 'k6/http';
import { SharedArray } from 'k6/data';

const keys = new SharedArray('keys', () => (__ENV.KEYS ? open(__ENV.KEYS).trim().split('\n') : ['']));

export const options = {
  scenarios: {
    constant: {
      executor: 'constant-arrival-rate',
      rate: Number(__ENV.RATE || 5000),
      timeUnit: '1s',
      duration: `${__ENV.SECONDS_EACH || 5}s`,
      preAllocatedVUs: 128,
      maxVUs: 512,
    },
  },
  discardResponseBodies: true,
  summaryTrendStats: ['med', 'p(99)', 'p(99.9)'],
};

export default function () {
  const key = keys[Math.floor(Math.random() * keys.length)];
  http.get(__ENV.URL, key ? { headers: { 'X-API-Key': key } } : {});
}

export function handleSummary(data) {
  const time = data.metrics.http_req_duration.values;
  const us = (name) => Math.round(time[name] * 1000);
  const failed = data.metrics.http_req_failed.values.passes;
  const dropped = data.metrics.dropped_iterations ? data.metrics.dropped_iterations.values.count : 0;
  return {
    stdout: `RESULT ${data.metrics.http_reqs.values.count} ${us('med')} ${us('p(99)')} ${us('p(99.9)')} ${failed} ${dropped}\n`,
  };
}
