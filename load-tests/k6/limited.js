// Three consumers, each asking for twice its limit of 50 a second: half must pass, the other half be
// 429 with Retry-After, and none of the three may take from another. Run by k6.sh.
import http from 'k6/http';
import { check } from 'k6';
import { Counter } from 'k6/metrics';

const keys = open(__ENV.KEYS).trim().split('\n').slice(0, 3);
const seconds = Number(__ENV.SECONDS_EACH || 10);
const passed = keys.map((_, i) => new Counter(`passed_${i}`));
const refused = new Counter('refused');

const asking = (i) => ({
  executor: 'constant-arrival-rate',
  exec: `consumer${i}`,
  rate: 100,
  timeUnit: '1s',
  duration: `${seconds}s`,
  preAllocatedVUs: 10,
  maxVUs: 50,
});

// The limit for the time, the burst at its start, and a second's worth for when the clocks differ.
const most = 50 * seconds + 100;
const least = 50 * seconds * 0.9;
export const options = {
  scenarios: { a: asking(0), b: asking(1), c: asking(2) },
  thresholds: Object.assign(
    { checks: ['rate==1'] },
    ...keys.map((_, i) => ({ [`passed_${i}`]: [`count<=${most}`, `count>=${least}`] })),
  ),
};

function ask(i) {
  const response = http.get(__ENV.URL, { headers: { 'X-API-Key': keys[i] } });
  if (response.status === 200) passed[i].add(1);
  else refused.add(1);
  check(response, {
    'is 200, or 429 with Retry-After': (r) =>
      r.status === 200 || (r.status === 429 && Number(r.headers['Retry-After']) >= 1),
  });
}

export const consumer0 = () => ask(0);
export const consumer1 = () => ask(1);
export const consumer2 = () => ask(2);

export function handleSummary(data) {
  const count = (name) => (data.metrics[name] ? data.metrics[name].values.count : 0);
  const each = keys.map((_, i) => count(`passed_${i}`)).join(' ');
  return { stdout: `RESULT ${count('http_reqs')} ${each} ${count('refused')} ${data.metrics.checks.values.fails}\n` };
}
