// Counts the checks of one run of the conformance suite and names those that failed.
//
//   node summary.mjs FOLDER STATUS
//
// FOLDER is what the suite was told to write to, STATUS what it exited with. Exits 1 unless there are scenarios, each
// of them ended, and no check failed.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const [folder, status] = process.argv.slice(2);
const counts = { SUCCESS: 0, FAILURE: 0, WARNING: 0, SKIPPED: 0, INFO: 0 };
const failures = [];
const warnings = [];

// A report is one line a check; the whole words are in the file.
const CHARS_MAX = 240;
const brief = (text) => text.replace(/\s+/g, ' ').slice(0, CHARS_MAX);

// `server-NAME-TIME`, where the time is in ISO 8601 with dashes.
const nameOf = (entry) => entry.replace(/^server-/, '').replace(/-\d{4}-\d{2}-\d{2}T.*$/, '');

const entries = existsSync(folder) ? readdirSync(folder).sort() : [];
for (const entry of entries) {
  const scenario = nameOf(entry);
  const file = join(folder, entry, 'checks.json');
  if (!existsSync(file)) {
    counts.FAILURE += 1;
    failures.push(`${scenario}: it did not end`);
    continue;
  }
  for (const check of JSON.parse(readFileSync(file, 'utf8'))) {
    counts[check.status] = (counts[check.status] ?? 0) + 1;
    const line = brief(`${scenario}: ${check.id}: ${check.errorMessage ?? check.description}`);
    if (check.status === 'FAILURE') failures.push(line);
    if (check.status === 'WARNING') warnings.push(line);
  }
}
// The suite fails by its status, too, when it could not start, or broke off between two scenarios.
if (entries.length === 0) failures.push('no scenario ran');
if (status !== '0' && failures.length === 0) failures.push(`the suite exited with ${status}`);

for (const line of failures) console.log(`  failed   ${line}`);
for (const line of warnings) console.log(`  warning  ${line}`);
console.log(
  `  ${entries.length} scenarios: ${counts.SUCCESS} checks passed, ${counts.FAILURE} failed, ` +
    `${counts.WARNING} warnings, ${counts.SKIPPED} skipped`,
);
process.exit(failures.length === 0 ? 0 : 1);
