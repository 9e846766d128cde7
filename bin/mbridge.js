#!/usr/bin/env node
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 11)) {
  console.error(`mbridge needs Node.js 20.11 or newer, this is ${process.versions.node}`);
  process.exit(4);
}
await import('../dist/src/cli/main.js');
