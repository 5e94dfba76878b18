// Counts the results of the cache suite by kind. Surrogate-Control is left out: it is for CDNs.
import fs from 'node:fs'
import { pathToFileURL } from 'node:url'

const [folder, resultsFile, expectedFile, document] = process.argv.slice(2)
const { default: suites } = await import(pathToFileURL(`${folder}/tests/index.mjs`))
const results = JSON.parse(fs.readFileSync(resultsFile))
const reasons = new Map(fs.readFileSync(expectedFile, 'utf8').trim().split('\n').map(line => {
  const [id, ...why] = line.split(' ')
  return [id, why.join(' ')]
}))

const kinds = { required: [0, 0], optimal: [0, 0], check: [0, 0] }
const failed = []
for (const suite of suites) {
  for (const test of suite.tests) {
    const kind = test.kind ?? 'required'
    if (test.browser_only || results[test.id] === undefined) continue
    kinds[kind][1] += 1
    if (results[test.id] === true) kinds[kind][0] += 1
    else if (kind === 'required') failed.push(test.id)
  }
}

const rows = Object.entries(kinds).map(([kind, [passed, all]]) => `| ${kind} | ${passed} | ${all} |`)
const failures = failed.map(id => `| \`${id}\` | ${reasons.get(id) ?? 'not known'} |`)
const table = [
  '| kind | passed | of |', '|---|--:|--:|', ...rows, '',
  '| required and not passed | why |', '|---|---|', ...failures
].join('\n')
console.log(table)

if (document) {
  const text = fs.readFileSync(document, 'utf8')
  const marked = /(<!-- suite -->\n)[\s\S]*(\n<!-- end of suite -->)/
  fs.writeFileSync(document, text.replace(marked, `$1${table}$2`))
}
const unknown = failed.filter(id => !reasons.has(id))
if (unknown.length > 0) {
  console.log(`\nfailed without a reason in ${expectedFile}: ${unknown.join(', ')}`)
  process.exit(1)
}
