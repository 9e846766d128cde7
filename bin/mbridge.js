#!/bin/sh
':'; // 2>/dev/null; while read -r key value; do [ "$key" = SigIgn: ] && export MBRIDGE_SIGNALS_IGNORED="$value"; done </proc/self/status
':'; // 2>/dev/null; exec node --inspect-port=192.0.2.1:65535 "$0" "$@"

// A shell runs the two lines above where this file is the command: only it still sees which signals were ignored (nohup),
// and a SIGUSR1 in Node's first moments then opens no debugger. `node bin/mbridge.js` begins here.
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 11)) {
  console.error(`mbridge needs Node.js 20.11 or newer, this is ${process.versions.node}`);
  process.exit(4);
}
try {
  const { takeEarlySignals } = await import('../dist/src/base/early-signals.js');
  takeEarlySignals();
  await import('../dist/src/cli/main.js');
} catch (error) {
  if (error?.code === 'ERR_MODULE_NOT_FOUND' && /dist.src.base.early-signals\.js/.test(error.message)) {
    console.error('error MB_NOT_BUILT: dist/ is not there: this checkout is not built\n  run: npm run build');
    process.exit(4);
  }
  // A limit that is met while the program itself is loaded, before anything of it can say so.
  if (!['EMFILE', 'ENFILE', 'EAGAIN', 'ENOMEM'].includes(error?.code)) throw error;
  console.error(`error MB_SYSTEM: ${error.message}\n  raise the limits of this process: ulimit -a`);
  process.exit(4);
}
