import { mkdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { findPort, findScript } from './preflight.js';
import { Sandbox } from './test-support.js';

describe('finding the script', () => {
  it('resolves it against the working directory', async () => {
    await using box = new Sandbox();
    const path = box.script('train.ts', '');
    expect(findScript('./train.ts', box.folder)).toBe(path);
    expect(findScript(path, '/')).toBe(path);
  });

  it('names the nearest file when it is missing', async () => {
    await using box = new Sandbox();
    box.script('train.ts', '');
    expect(() => findScript('trian.ts', box.folder)).toThrow(`No such script: ${join(box.folder, 'trian.ts')}. Did you mean train.ts?`);
    expect(() => findScript('train.js', box.folder)).toThrow('Did you mean train.ts?');
    expect(() => findScript('something-else.ts', box.folder)).toThrow(/something-else\.ts\.$/);
  });

  it('says so when the folder is missing, when it is a folder, and when it is Python', async () => {
    await using box = new Sandbox();
    mkdirSync(join(box.folder, 'src'));
    expect(() => findScript('nowhere/train.ts', box.folder)).toThrow(`(the folder ${join(box.folder, 'nowhere')} does not exist)`);
    expect(() => findScript('src', box.folder)).toThrow('src is a directory: expected the path of a .ts or .js file.');
    expect(() => findScript('train.py', box.folder)).toThrow('train.py is a Python script');
  });
});

describe('finding the port', () => {
  it('takes a free one when none is asked for', async () => {
    const port = await findPort('127.0.0.1', undefined);
    expect(port).toBeGreaterThan(1023);
    await expect(findPort('127.0.0.1', port)).resolves.toBe(port);
  });

  it('refuses one in use and says what to do', async () => {
    const server = createServer();
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const { port } = server.address() as { port: number };
    await expect(findPort('127.0.0.1', port)).rejects.toMatchObject({
      code: 'PORT_IN_USE',
      message: expect.stringMatching(
        `Port ${port} on 127\\.0\\.0\\.1 is in use.*Give another one with --master_port, or leave the flag out`,
      ),
    });
    server.close();
  });

  it('refuses an address of another machine', async () => {
    // 192.0.2.0/24 is set aside for documentation, so no machine has it.
    await expect(findPort('192.0.2.1', 29500)).rejects.toMatchObject({
      code: 'BAD_ADDRESS',
      message: expect.stringContaining('--master_addr 192.0.2.1 is not an address of this machine'),
    });
  });
});
