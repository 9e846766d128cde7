// What `mbridge doctor` starts as a process of its own: loads the engine, its CUDA part and every GPU, and writes a line
// of JSON after each. A library that crashes ends this process only, and the lines show how far it came.
import { writeSync } from 'node:fs';
import type { NativeBinding } from '../engine/binding.js';
import { DTYPES } from '../engine/dtype.js';
import { loadBinding } from '../engine/load.js';
import { loadCudaEngine } from '../engine/open-device.js';
import { takeEarlySignals } from '../base/early-signals.js';
import { MbridgeError } from '../base/errors.js';
import type { ProbeLine } from './facts.js';

const STDOUT = 1;

function say(line: ProbeLine): void {
  writeSync(STDOUT, `${JSON.stringify(line)}\n`);
}

function reasonOf(error: unknown): string {
  const hint = error instanceof MbridgeError && error.hint !== undefined ? ` (${error.hint})` : '';
  return `${error instanceof Error ? error.message : String(error)}${hint}`;
}

/** Opens a GPU and asks which kernel serves the attention of Qwen3-4B at 4096 tokens. */
function probeDevice(binding: NativeBinding, index: number): void {
  try {
    const device = binding.open('cuda', index, 1);
    const { freeBytes } = binding.info(device);
    const { kernel } = binding.attentionWorkspace(device, DTYPES.bf16.code, 1, 4096, 4096, 32, 8, 128, 0, true);
    say({ stage: 'device', index, freeBytes, attention: kernel, reason: null });
    binding.close(device);
  } catch (error) {
    say({ stage: 'device', index, freeBytes: null, attention: null, reason: reasonOf(error) });
  }
}

function probe(): void {
  let binding: NativeBinding;
  try {
    binding = loadBinding();
    say({ stage: 'native', cores: binding.cpuCount(), description: binding.describe('cpu'), reason: null });
  } catch (error) {
    say({ stage: 'native', cores: null, description: null, reason: reasonOf(error) });
    return;
  }
  try {
    loadCudaEngine(binding);
    say({ stage: 'cuda', description: binding.describe('cuda'), reason: null });
  } catch (error) {
    say({ stage: 'cuda', description: null, reason: reasonOf(error) });
    return;
  }
  let count = 0;
  try {
    count = binding.deviceCount('cuda');
  } catch {
    // the description says why
  }
  for (let index = 0; index < count; index++) probeDevice(binding, index);
  say({ stage: 'end' });
}

takeEarlySignals();
probe();
