import { homedir } from 'node:os';

/** The keys that name a file or folder. Each of `validation.sets` has one of its own. */
export const PATH_KEYS: ReadonlySet<string> = new Set([
  'model.hf_path',
  'dataset.path',
  'tokenizer.path',
  'checkpoint.save',
  'checkpoint.load',
  'checkpoint.pretrained_checkpoint',
  'peft.adapter',
  'logger.log_dir',
  'logger.tensorboard_dir',
]);

/**
 * A path as a shell would have made it: `~/` at its start is the home folder, `$NAME` and `${NAME}` are the variables of
 * the environment. What a shell knows beyond that is a problem, never a file of that name.
 */
export function expandPath(
  path: string,
  env: Readonly<Record<string, string | undefined>> = process.env,
): { readonly path: string } | { readonly problem: string } {
  if (path.includes('\0')) return { problem: 'holds a NUL, which no path does' };
  const shell = /\$\(|\$\{(?![A-Za-z_]\w*\})/.exec(path);
  if (shell !== null) {
    return { problem: `${path} holds ${shell[0]}, a shell's; only ~/, $NAME and \${NAME} are understood here` };
  }
  const user = /^~([^/]+)/.exec(path)?.[1];
  if (user !== undefined) {
    return { problem: `${path} begins with ~${user}; write that folder in full (./~${user} if it is called so)` };
  }
  const unset: string[] = [];
  const filled = path.replace(/\$\{?([A-Za-z_]\w*)\}?/g, (_, name: string) => {
    const value = env[name] ?? '';
    if (value === '') unset.push(name);
    return value;
  });
  if (unset.length > 0) {
    return { problem: `${path} names $${unset.join(', $')}, which is not set in the environment` };
  }
  if (!/^~(\/|$)/.test(filled)) return { path: filled };
  const home = homeFolder(env);
  return home === '' ? { problem: `${path}: no home folder is known; set HOME` } : { path: home + filled.slice(1) };
}

function homeFolder(env: Readonly<Record<string, string | undefined>>): string {
  try {
    return env['HOME'] ?? homedir();
  } catch {
    return ''; // a user without an entry in /etc/passwd
  }
}
