import type { RankFunction } from '../../src/testing/run-ranks.js';

export const runRank: RankFunction<number> = ({ rank }) => rank;
