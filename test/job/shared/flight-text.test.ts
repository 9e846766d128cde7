import { expect, test } from 'vitest';
import type { FlightCall, FlightGroup, FlightRecord } from '../../../src/job/shared/flight-record.js';
import { flightSentence } from '../../../src/job/shared/flight-text.js';

function call(
  op: string,
  number: number,
  state: FlightCall['state'],
  ago: number,
  more: Partial<FlightCall> = {},
): FlightCall {
  const ended = state === 'entered' ? null : ago;
  const bare = { dtype: 'f32', count: 8, argument: 0, transfers: [], transfer_count: 0 };
  return { op, number, state, entered_s_ago: ago, ended_s_ago: ended, ...bare, ...more };
}

function group(name: string, ranks: number[], calls: FlightCall[], more: Partial<FlightGroup> = {}): FlightGroup {
  const none = ranks.map(() => 0);
  const collectives = calls.reduce((most, { op, number }) => (op === 'p2p' ? most : Math.max(most, number)), 0);
  const bare = { id: name, size: ranks.length, exchanges: 0, sent: none, received: none };
  return { name, ranks, calls, collectives, ...bare, ...more };
}

function record(rank: number, groups: FlightGroup[], phase = ''): FlightRecord {
  return { rank, time: '2026-01-01T00:00:00.000Z', step: 3, phase, phase_s: 61, groups };
}

const TP = [0, 1];
const DP = [0, 2];

interface Case {
  what: string;
  records: FlightRecord[];
  died?: number[];
  silent?: number[];
  said: string | undefined;
}

const CASES: Case[] = [
  {
    what: 'all is well',
    records: [record(0, [group('tp', TP, [call('all_reduce', 1, 'finished', 1)])])],
    said: undefined,
  },
  {
    what: 'members call different things',
    records: [
      record(0, [group('tp', TP, [call('all_reduce', 5, 'entered', 9)])]),
      record(1, [group('tp', TP, [call('broadcast', 5, 'finished', 9, { argument: 1 })])]),
    ],
    said: 'the members of tp [0,1] disagree about call #5: rank 0 called all_reduce (8 f32, sum), rank 1 called broadcast (8 f32 from rank 1)',
  },
  {
    what: 'two of three call the same, and one another thing',
    records: [0, 1, 2].map((rank) => {
      return record(rank, [group('all', [0, 1, 2], [call(rank < 2 ? 'all_gather' : 'barrier', 5, 'entered', 9)])]);
    }),
    said: 'the members of all [0,1,2] disagree about call #5: ranks 0-1 called all_gather (8 f32), rank 2 called barrier (8 f32)',
  },
  {
    what: 'nobody is missing',
    records: TP.map((rank) => record(rank, [group('tp', TP, [call('all_reduce', 5, 'issued', 9)])])),
    said: 'ranks 0-1 wait in all_reduce #5 of tp [0,1] (8 f32, sum), which all have entered, and which has not finished',
  },
  {
    what: 'nobody is missing, and one does not end as the others',
    records: [0, 1, 2].map((rank) =>
      record(rank, [group('all', [0, 1, 2], [call('all_reduce', 5, rank === 0 ? 'failed' : 'entered', 9)])]),
    ),
    silent: [2],
    said: 'ranks 0-1 wait in all_reduce #5 of all [0,1,2] (8 f32, sum), which all have entered; rank 2 does not answer in it: its last was all_reduce #5 of all [0,1,2], entered 9.0 s ago and not finished',
  },
  {
    what: 'nobody is missing, and none has ended by itself',
    records: TP.map((rank) => record(rank, [group('tp', TP, [call('all_reduce', 5, 'issued', 9)])])),
    silent: TP,
    said: 'ranks 0-1 wait in all_reduce #5 of tp [0,1] (8 f32, sum), which all have entered, and which has not finished',
  },
  {
    what: 'a rank that waits is not to blame, but the one that it waits for',
    records: [
      record(0, [group('tp', TP, [call('all_reduce', 5, 'entered', 9)]), group('dp', DP, [])]),
      record(1, [
        group('tp', TP, [call('all_reduce', 4, 'finished', 10)]),
        group('ep', [1, 3], [call('barrier', 1, 'entered', 9, { count: 0 })]),
      ]),
      record(3, [group('ep', [1, 3], [])], 'a callback'),
    ],
    said: 'rank 1 waits in barrier #1 of ep [1,3]; rank 3 never entered it: its record has no call (in a callback of update 3 for 61 s)',
  },
  {
    what: 'a rank is stopped in a call that the others have left',
    records: [
      record(0, [group('tp', TP, [call('all_reduce', 5, 'finished', 9), call('all_reduce', 6, 'entered', 8)])]),
      record(1, [group('tp', TP, [call('all_reduce', 5, 'entered', 9.5)])]),
    ],
    said: 'rank 0 waits in all_reduce #6 of tp [0,1] (8 f32, sum); rank 1 never entered it: its last was all_reduce #5 of tp [0,1], entered 9.5 s ago and not finished',
  },
  {
    what: 'a rank dies in the collective that the others wait in',
    records: [
      record(0, [group('tp', TP, [call('all_reduce', 5, 'failed', 2)])]),
      record(1, [group('tp', TP, [call('all_reduce', 5, 'entered', 2)])]),
    ],
    died: [1],
    said: 'rank 0 waits in all_reduce #5 of tp [0,1] (8 f32, sum); rank 1 entered it and died: its last was all_reduce #5 of tp [0,1], entered 2.0 s ago and not finished',
  },
  {
    what: 'a rank dies while nobody waits',
    records: [
      record(0, [group('tp', TP, [call('all_reduce', 5, 'finished', 2)])]),
      record(1, [group('tp', TP, [call('all_reduce', 5, 'finished', 2)])], 'the optimizer'),
    ],
    died: [1],
    said: "nobody waits in a collective; rank 1's last was all_reduce #5 of tp [0,1], finished 2.0 s ago (in the optimizer of update 3 for 61 s)",
  },
  {
    what: 'a rank does not join a group',
    records: [
      record(0, [group('tp', TP, [call('create', 0, 'entered', 70, { count: 0 })])]),
      record(1, [], 'the setup'),
    ],
    said: 'rank 0 waits to join group tp [0,1]; rank 1 never came: its record has no call (in the setup of update 3 for 61 s)',
  },
  {
    what: 'a message is not received',
    records: [
      record(0, [
        group('pp', TP, [
          call('p2p', 7, 'entered', 9, {
            transfers: [
              { kind: 'send', peer: 1, number: 7 },
              { kind: 'receive', peer: 1, number: 3 },
            ],
            transfer_count: 2,
          }),
        ]),
      ]),
      record(1, [group('pp', TP, [call('p2p', 6, 'finished', 9)], { sent: [3, 0], received: [6, 0] })]),
    ],
    said: 'rank 0 waits in p2p #7 of pp [0,1] (send #7 to rank 1, receive #3 from rank 1); rank 1 never received it: its last was p2p #6 of pp [0,1], finished 9.0 s ago',
  },
  {
    what: 'the oldest of the calls on a GPU is the one that waits, and a rank without a record is not told of',
    records: [
      record(0, [
        group(
          'dp',
          [0, 2, 4],
          [
            call('reduce_scatter', 8, 'finished', 40),
            call('reduce_scatter', 9, 'issued', 31, { dtype: 'bf16' }),
            call('all_gather', 10, 'issued', 31),
          ],
        ),
      ]),
      record(2, [group('dp', [0, 2, 4], [call('reduce_scatter', 8, 'finished', 31)])]),
    ],
    said: 'rank 0 waits in reduce_scatter #9 of dp [0,2,4] (8 bf16, sum); rank 2 never entered it: its last was reduce_scatter #8 of dp [0,2,4], finished 31 s ago',
  },
];

test.each(CASES)('what is said where $what', ({ records, died, silent, said }) => {
  expect(flightSentence(records, died, silent)).toBe(said);
});
