import { lookup } from 'node:dns/promises';
import { networkInterfaces } from 'node:os';
import { systemError } from '../../base/system-error.js';

/**
 * The address on which rank 0 of several nodes serves the store: MASTER_ADDR's own, where it is an address of this node
 * (a loopback address written as such included), so that nothing listens on other interfaces. All interfaces, where the
 * others reach this node by an address that it does not know itself: a virtual one, or a host name that means loopback
 * here. @throws MbridgeError MB_STORE_ADDRESS (exit 4) where the name is not known
 */
export async function listenAddress(masterAddr: string): Promise<string> {
  if (masterAddr === 'localhost') return '127.0.0.1';
  let addresses: string[];
  try {
    addresses = (await lookup(masterAddr, { all: true })).map(({ address }) => address);
  } catch (error) {
    throw systemError(error, { code: 'MB_STORE_ADDRESS', what: `find MASTER_ADDR ${masterAddr}` }) ?? error;
  }
  if (addresses.length === 1 && addresses[0] === masterAddr && isLoopback(masterAddr)) return masterAddr;
  const own = Object.values(networkInterfaces()).flatMap((entries) => (entries ?? []).map(({ address }) => address));
  const usable = addresses.find((address) => !isLoopback(address) && own.includes(address));
  return usable ?? (addresses.some((address) => !address.includes(':')) ? '0.0.0.0' : '::');
}

/** What a process of the same machine connects to, where something listens on `address`. */
export function nearAddress(address: string): string {
  return address === '0.0.0.0' ? '127.0.0.1' : address === '::' ? '::1' : address;
}

/**
 * The address by which other nodes reach this process: its own end of the connection to the store. Where that is the
 * loopback, on rank 0's node behind a virtual address, another of this machine.
 */
export function outwardAddress(own: string, masterAddr: string): string {
  const bare = own.replace(/^::ffff:/, '');
  if (!isLoopback(bare) || masterAddr === 'localhost' || isLoopback(masterAddr)) return bare;
  const all = Object.values(networkInterfaces()).flatMap((entries) => entries ?? []);
  const outward = all.find(({ internal, address }) => !internal && address.includes(':') === bare.includes(':'));
  return outward?.address ?? bare;
}

function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.');
}
