#!/usr/bin/env node
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 11)) {
  console.error(`mbridge needs Node.js 20.11 or newer, this is ${process.versions.node}`);
  process.exit(4);
}
try {
  await import('../dist/src/cli/main.js');
} catch (error) {
  // A limit that is met while the program itself is loaded, before anything of it can say so.
  if (!['EMFILE', 'ENFILE', 'EAGAIN', 'ENOMEM'].includes(error?.code)) throw error;
  console.error(`error MB_SYSTEM: ${error.message}\n  raise the limits of this process: ulimit -a`);
  process.exit(4);
}
