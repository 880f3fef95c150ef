import { describe, expect, test } from 'vitest';
import { firstNode, placeFromEnvironment } from './environment.js';

describe('placeFromEnvironment', () => {
  test("reads the ecosystem's variables", () => {
    const env = { RANK: '3', WORLD_SIZE: '4', LOCAL_RANK: '1', MASTER_ADDR: 'node1', MASTER_PORT: '1234' };
    expect(placeFromEnvironment(env)).toEqual({ rank: 3, size: 4, localRank: 1, masterAddr: 'node1', masterPort: 1234, job: '' });
  });

  test('reads what srun sets, and takes the first node as the address of rank 0', () => {
    const env = {
      SLURM_PROCID: '5',
      SLURM_NTASKS: '8',
      SLURM_LOCALID: '1',
      SLURM_STEP_NODELIST: 'gpu[07-08],x1',
      SLURM_JOB_ID: '42',
      SLURM_STEP_ID: '0',
    };
    expect(placeFromEnvironment(env)).toEqual({ rank: 5, size: 8, localRank: 1, masterAddr: 'gpu07', masterPort: 29500, job: '42.0' });
  });

  test('reads what mpirun sets on one host', () => {
    const env = { OMPI_COMM_WORLD_RANK: '1', OMPI_COMM_WORLD_SIZE: '2', OMPI_COMM_WORLD_LOCAL_RANK: '1', OMPI_COMM_WORLD_LOCAL_SIZE: '2' };
    expect(placeFromEnvironment(env)).toMatchObject({ rank: 1, size: 2, localRank: 1, masterAddr: '127.0.0.1' });
  });

  test('reads what PMI launchers set', () => {
    expect(placeFromEnvironment({ PMI_RANK: '0', PMI_SIZE: '3', MASTER_ADDR: 'a' })).toMatchObject({ rank: 0, size: 3, masterAddr: 'a' });
  });

  test('prefers RANK to a scheduler around it', () => {
    const env = { RANK: '0', WORLD_SIZE: '2', MASTER_ADDR: 'a', SLURM_PROCID: '7', SLURM_NTASKS: '8' };
    expect(placeFromEnvironment(env)).toMatchObject({ rank: 0, size: 2 });
  });

  test('is a world of one where nobody gave a rank', () => {
    expect(placeFromEnvironment({})).toMatchObject({ rank: 0, size: 1 });
  });

  test.each([
    [{ RANK: '0' }, /WORLD_SIZE is not set/],
    [{ RANK: 'x', WORLD_SIZE: '2' }, /RANK='x' is not a whole number/],
    [{ RANK: '-1', WORLD_SIZE: '2' }, /RANK='-1' is not a whole number/],
    [{ RANK: '2', WORLD_SIZE: '2', MASTER_ADDR: 'a' }, /RANK=2 is not a rank of a world of 2 .*from 0 to 1/],
    [{ RANK: '0', WORLD_SIZE: '0' }, /at least one rank/],
    [{ RANK: '1', WORLD_SIZE: '2' }, /MASTER_ADDR is not set/],
    [{ RANK: '1', WORLD_SIZE: '2', MASTER_ADDR: 'a', MASTER_PORT: '70000' }, /MASTER_PORT=70000 is not a TCP port/],
    [{ WORLD_SIZE: '4' }, /RANK is not set/],
    [{ OMPI_COMM_WORLD_RANK: '1', OMPI_COMM_WORLD_SIZE: '4', OMPI_COMM_WORLD_LOCAL_SIZE: '2' }, /MASTER_ADDR is not set.*mpirun/],
  ])('refuses %j', (env, message) => {
    expect(() => placeFromEnvironment(env)).toThrow(message);
  });

  test.each([
    ['node1', 'node1'],
    ['node1,node2', 'node1'],
    ['gpu[07-09,12]', 'gpu07'],
    ['rack2-n[3,5].cluster,login', 'rack2-n3.cluster'],
  ])('the first node of the Slurm list %s is %s', (list, node) => {
    expect(firstNode(list)).toBe(node);
  });
});
