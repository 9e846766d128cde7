import type { Command } from 'commander';
import { addK8s } from './k8s.js';
import { addSlurm } from './slurm.js';

/** `mbridge launch`: jobs for the starters of clusters. */
export function addLaunch(program: Command): void {
  const launch = program.command('launch').description('write a job for Slurm or Kubernetes, checked before it waits');
  addSlurm(launch);
  addK8s(launch);
}
