// How far the estimates of src/llm/estimate.rs are from a real tokenizer's count (o200k, of OpenAI's newer
// models), by the same rule in JavaScript. Run by ../tokens.sh, which brings `gpt-tokenizer`.
import {readFileSync, readdirSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';

const [modules, root] = process.argv.slice(2);
const {encode} = createRequire(join(modules, 'x.js'))('gpt-tokenizer/encoding/o200k_base');

function estimate(text) {
  let quarters = 0;
  for (const byte of Buffer.from(text)) {
    quarters += byte < 0x80 ? 1 : byte < 0xc0 ? 0 : byte < 0xe0 ? 1 : byte < 0xf0 ? 3 : 8;
  }
  return Math.ceil(quarters / 4);
}

const read = (folder, end) => readdirSync(join(root, folder))
  .filter(name => name.endsWith(end))
  .map(name => readFileSync(join(root, folder, name), 'utf8'))
  .join('\n');
const own = name => readFileSync(join(import.meta.dirname, name), 'utf8');
const texts = {
  'English (docs/*.md)': read('docs', '.md'),
  'Rust (src/llm/*.rs)': read('src/llm', '.rs'),
  'YAML (conf/*.yaml)': read('conf', '.yaml'),
  'JSON (a conversation)': own('conversation.json'),
  'German': own('german.txt'),
  'Russian': own('russian.txt'),
  'Chinese': own('chinese.txt'),
  'Japanese': own('japanese.txt'),
};
console.log('text                     bytes   tokens estimate    off');
for (const [name, text] of Object.entries(texts)) {
  const [real, guess] = [encode(text).length, estimate(text)];
  const off = `${guess >= real ? '+' : ''}${Math.round((guess / real - 1) * 100)} %`;
  console.log(name.padEnd(22), String(Buffer.byteLength(text)).padStart(8), String(real).padStart(8),
    String(guess).padStart(8), off.padStart(6));
}
