// Plain answers of a workflow. Export from src/plugin.js what you want to decide: `branchName(task, attempt, config)`,
// `commitMessage(facts, config)`, `mergeMessage(facts, config)`, `pullRequest(facts, config)`, `mergeOrder(queue, config)`. What
// is not exported has the plain answer of this file.

/** `t-12-what-it-is-about`, with the attempt behind it from the second on. */
export function branchName(task, attempt = 0) {
  const slug = `${task.id}-${task.title}`.toLowerCase().replace(/[^a-z0-9]+/g, '-').slice(0, task.id.length + 40);
  const name = slug.replace(/^-+|-+$/g, '');
  return attempt === 0 ? name : `${name}-${attempt + 1}`;
}

export const commitMessage = ({ task, note }) => `${task.title}\n${note === '' ? '' : `\n${note}\n`}\nTask: ${task.id}\n`;
export const mergeMessage = ({ task, branch }) => `Merge ${branch}: ${task.title}\n\nTask: ${task.id}\n`;
export const pullRequest = ({ task }) => ({ title: task.title, body: task.description });
export const mergeOrder = (queue) => queue.map((_, position) => position);
