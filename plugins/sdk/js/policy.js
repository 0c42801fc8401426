// The answers of a policy. Export `check(gate, facts, config)` from src/plugin.js: gate is 'claim', 'review', 'submit', 'land' or
// 'grant'; facts: actor, owner, task, kind, labels, priority, held, target, head, paths, linesChanged, approvals, checks,
// capability.

/** Go on. */
export const allow = () => ({ tag: 'allow' });

/** Refused: a short stable name of the rule, why, and what would help. */
export const deny = (rule, why, advice) => ({ tag: 'deny', val: { rule, why, advice } });

/** Not yet: so many approvals in all, by anyone or by those who satisfy a capability expression. */
export const need = (rule, approvals, why, by = '') => ({ tag: 'need', val: { rule, approvals, by, why } });
