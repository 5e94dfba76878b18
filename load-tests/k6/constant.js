// A constant rate of requests, each with a key drawn at random: what latency is at a load that the
// gateway bears. Run by k6.sh.
import http from 'k6/http';
import { check } from 'k6';
import { SharedArray } from 'k6/data';

const keys = new SharedArray('keys', () => open(__ENV.KEYS).trim().split('\n'));

export const options = {
  scenarios: {
    constant: {
      executor: 'constant-arrival-rate',
      rate: Number(__ENV.RATE || 1000),
      timeUnit: '1s',
      duration: `${__ENV.SECONDS_EACH || 10}s`,
      preAllocatedVUs: 64,
      maxVUs: 256,
    },
  },
  thresholds: { checks: ['rate==1'], dropped_iterations: ['count==0'] },
  summaryTrendStats: ['med', 'p(99)', 'p(99.9)'],
};

export default function () {
  const key = keys[Math.floor(Math.random() * keys.length)];
  const response = http.get(__ENV.URL, { headers: { 'X-API-Key': key } });
  check(response, {
    'is 200': (r) => r.status === 200,
    'says what is left': (r) => 'Ratelimit' in r.headers || 'RateLimit' in r.headers,
  });
}

export function handleSummary(data) {
  const time = data.metrics.http_req_duration.values;
  const us = (name) => Math.round(time[name] * 1000);
  const checks = data.metrics.checks.values;
  return {
    stdout: `RESULT ${data.metrics.http_reqs.values.count} ${us('med')} ${us('p(99)')} ${us('p(99.9)')} ${checks.fails}\n`,
  };
}
