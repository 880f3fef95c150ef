import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { AutoModelForCausalLM, AutoTokenizer, type DownloadProgress } from '@deepspeed-ts/transformers';
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { runWorld } from '../spawn-world.js';
import { temporaryFolder, tensorsOf, tinyGpt2, tinyLlama, writeModel } from './directories.js';
import { COMMIT, FakeHub, hashOf } from './fake-hub.js';

const ID = 'someone/tiny-llama';
const folder = temporaryFolder();
let hub: FakeHub;
let cacheDir: string;
let made = 0;
let weights: Buffer;

beforeAll(async () => {
  hub = await FakeHub.start();
  const directory = await writeModel(join(folder, 'source'), tinyLlama, tensorsOf(tinyLlama));
  weights = readFileSync(join(directory, 'model.safetensors'));
  hub.add(ID, files({ 'model.safetensors': weights }));
});

beforeEach(() => {
  cacheDir = join(folder, `cache-${made++}`);
  vi.stubEnv('HF_ENDPOINT', hub.url);
  vi.stubEnv('HF_HOME', join(folder, 'home'));
  for (const name of ['HF_TOKEN', 'HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE', 'HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE']) vi.stubEnv(name, '');
  hub.requests.length = 0;
  hub.mischief = {};
});

afterEach(() => {
  vi.unstubAllEnvs();
});

const files = (more: Readonly<Record<string, string | Buffer>>) => ({
  'config.json': JSON.stringify(tinyLlama),
  'tokenizer.json': '{"not": "looked at"}',
  'tokenizer_config.json': '{}',
  'README.md': 'of no use',
  'onnx/model.onnx': 'of no use',
  ...more,
});
const repo = (id = ID) => join(cacheDir, `models--${id.replace('/', '--')}`);

describe('a model on the Hub', () => {
  it('is downloaded into the cache that Hugging Face libraries share: no more than is needed, and once', async () => {
    const seen = new Map<string, DownloadProgress>();
    const model = await AutoModelForCausalLM.fromPretrained(ID, { cacheDir, onProgress: (progress) => seen.set(progress.file, progress) });
    expect(model.directory).toBe(join(repo(), 'snapshots', COMMIT));
    const wanted = ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'];
    expect(readdirSync(model.directory!).sort()).toEqual(wanted);
    expect(hub.takeDownloads().sort()).toEqual(wanted);
    expect(readFileSync(join(repo(), 'refs', 'main'), 'utf8')).toBe(COMMIT);
    // Blobs have the names that Python gives them: the hash of git for small files, sha256 for large ones.
    const link = join(model.directory!, 'model.safetensors');
    expect(lstatSync(link).isSymbolicLink()).toBe(true);
    expect(readlinkSync(link)).toBe(join('..', '..', 'blobs', hashOf('sha256', weights)));
    expect(readdirSync(join(repo(), 'blobs')).some((name) => name.includes('incomplete') || name.includes('lock'))).toBe(false);
    expect(seen.get('model.safetensors')).toEqual({ repo: ID, file: 'model.safetensors', loaded: weights.length, total: weights.length });

    await AutoModelForCausalLM.fromPretrained(ID, { cacheDir });
    expect(hub.takeDownloads()).toEqual([]);
  });

  it('is found in the cache without asking anybody, in offline mode or when told so, by branch and by commit', async () => {
    await AutoModelForCausalLM.fromPretrained(ID, { cacheDir });
    hub.requests.length = 0;
    for (const revision of ['main', COMMIT]) {
      const { directory } = await AutoModelForCausalLM.fromPretrained(ID, { cacheDir, localFilesOnly: true, revision });
      expect(directory).toBe(join(repo(), 'snapshots', COMMIT));
    }
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    vi.stubEnv('HF_HUB_CACHE', cacheDir);
    await AutoModelForCausalLM.fromPretrained(ID);
    expect(hub.requests).toEqual([]);
    await expect(AutoModelForCausalLM.fromPretrained('someone/else')).rejects.toMatchObject({
      code: 'ERR_HUB_OFFLINE',
      message: expect.stringMatching(
        /someone\/else: there is no such directory.*revision 'main' is not in the cache .*download it once while online/,
      ),
    });
    await expect(AutoModelForCausalLM.fromPretrained(ID, { revision: 'v2' })).rejects.toThrow(/revision 'v2' is not in the cache/);
  });

  it('is taken from the cache, with a warning, where the Hub can not be reached', async () => {
    await AutoModelForCausalLM.fromPretrained(ID, { cacheDir });
    vi.stubEnv('HF_ENDPOINT', 'http://127.0.0.1:9');
    const warn = vi.spyOn(console, 'warn').mockImplementation(() => {});
    await AutoModelForCausalLM.fromPretrained(ID, { cacheDir });
    expect(warn.mock.calls[0]![0]).toMatch(/http:\/\/127.0.0.1:9 can't be reached .* What was downloaded before is used/);
    warn.mockRestore();
    await expect(AutoModelForCausalLM.fromPretrained('someone/else', { cacheDir })).rejects.toMatchObject({ code: 'ERR_HUB_UNREACHABLE' });
  });

  it('may have its weights in shards, of which those that the index names are downloaded, or only a pickle', async () => {
    const sharded = await writeModel(join(folder, 'sharded'), tinyLlama, tensorsOf(tinyLlama), 2);
    const names = readdirSync(sharded).filter((name) => name.startsWith('model'));
    const parts = Object.fromEntries(names.map((name) => [name, readFileSync(join(sharded, name))]));
    hub.add('someone/sharded', files({ ...parts, 'pytorch_model.bin': 'of no use', 'consolidated.safetensors': 'of no use' }));
    await AutoModelForCausalLM.fromPretrained('someone/sharded', { cacheDir });
    expect(
      hub
        .takeDownloads()
        .filter((name) => !name.startsWith('token') && name !== 'config.json')
        .sort(),
    ).toEqual(names.sort());

    const pickle = readFileSync(new URL('../../golden/loading/gpt2-bin/pytorch_model.bin', import.meta.url));
    hub.add('gpt2', { 'config.json': JSON.stringify({ ...tinyGpt2, vocab_size: 13, n_positions: 8 }), 'pytorch_model.bin': pickle });
    await AutoModelForCausalLM.fromPretrained('gpt2', { cacheDir });
    expect(hub.takeDownloads()).toEqual(['config.json', 'pytorch_model.bin']);
  });

  it('gives its tokenizer without its weights', async () => {
    await expect(AutoTokenizer.fromPretrained(ID, { cacheDir })).rejects.toThrow(/tokenizer.json can't be used/);
    expect(hub.takeDownloads().sort()).toEqual(['config.json', 'tokenizer.json', 'tokenizer_config.json']);
  });

  it('moves on when its branch does, and keeps what it was', async () => {
    hub.add('someone/moving', files({ 'model.safetensors': weights }), 'a'.repeat(40));
    await AutoModelForCausalLM.fromPretrained('someone/moving', { cacheDir });
    hub.add('someone/moving', files({ 'model.safetensors': weights, 'generation_config.json': '{"eos_token_id": 9}' }), 'b'.repeat(40));
    hub.requests.length = 0;
    const { directory, generationConfig } = await AutoModelForCausalLM.fromPretrained('someone/moving', { cacheDir });
    expect(directory).toMatch(/b{40}$/);
    expect(generationConfig).toEqual({ eos_token_id: 9 });
    // The weights are those of before.
    expect(hub.takeDownloads()).toEqual(['generation_config.json']);
    expect(existsSync(join(repo('someone/moving'), 'snapshots', 'a'.repeat(40), 'config.json'))).toBe(true);
  });
});

describe('what the Hub refuses is an error with the way out', () => {
  it('a model or a revision that it does not have', async () => {
    await expect(AutoModelForCausalLM.fromPretrained('someone/none', { cacheDir })).rejects.toMatchObject({
      code: 'ERR_HUB_NOT_FOUND',
      message: expect.stringMatching(/has no such model.*Repository not found/),
    });
    await expect(AutoModelForCausalLM.fromPretrained(ID, { cacheDir, revision: 'v2' })).rejects.toThrow(
      /no revision 'v2' .*Invalid rev id/,
    );
  });

  it('a gated model, unless the token is right: given, in the environment, or stored by a login', async () => {
    hub.add('someone/gated', files({ 'model.safetensors': weights }), COMMIT, 'hf_right');
    const load = (token?: string) => AutoModelForCausalLM.fromPretrained('someone/gated', { cacheDir, token });
    await expect(load()).rejects.toMatchObject({ code: 'ERR_HUB_ACCESS', message: expect.stringMatching(/set HF_TOKEN, or give a token/) });
    await expect(load('hf_wrong')).rejects.toThrow(/the token does not open it: accept its terms at .*someone\/gated/);
    await expect(load('right')).rejects.toThrow(/access token must start with 'hf_'/);
    await load('hf_right');
    cacheDir += '-2';
    vi.stubEnv('HF_TOKEN', 'hf_right');
    await load();
    cacheDir += '-3';
    vi.stubEnv('HF_TOKEN', '');
    mkdirSync(join(folder, 'home'), { recursive: true });
    writeFileSync(join(folder, 'home', 'token'), 'hf_right\n');
    await load();
  });
});

describe('a download', () => {
  const blob = () => join(repo(), 'blobs', hashOf('sha256', weights));

  it('that is interrupted goes on from where it was', async () => {
    hub.mischief = { breakAfter: 1000, breaks: 2 };
    await AutoModelForCausalLM.fromPretrained(ID, { cacheDir });
    expect(hub.takeDownloads().filter((name) => name.startsWith('model'))).toEqual([
      'model.safetensors',
      expect.stringMatching(/^model.safetensors bytes=1000-/),
      expect.stringMatching(/^model.safetensors bytes=2000-/),
    ]);
    expect(readFileSync(blob()).equals(weights)).toBe(true);
  });

  it('that does not get further is given up, and the next call goes on; the cache never holds a part as the whole', async () => {
    await AutoTokenizer.fromPretrained(ID, { cacheDir }).catch(() => {});
    hub.requests.length = 0;
    hub.mischief = { breakAfter: 0, breaks: 100 };
    await expect(AutoModelForCausalLM.fromPretrained(ID, { cacheDir })).rejects.toMatchObject({
      code: 'ERR_HUB_DOWNLOAD',
      message: expect.stringMatching(/model.safetensors could not be downloaded: .*is kept: try again to go on from there/),
    });
    expect(existsSync(blob())).toBe(false);
    expect(existsSync(join(repo(), 'snapshots', COMMIT, 'model.safetensors'))).toBe(false);
    writeFileSync(`${blob()}.incomplete`, weights.subarray(0, 3000));
    hub.mischief = {};
    hub.requests.length = 0;
    await AutoModelForCausalLM.fromPretrained(ID, { cacheDir });
    expect(hub.takeDownloads()).toEqual([`model.safetensors bytes=3000-${weights.length - 1}`]);
    expect(readFileSync(blob()).equals(weights)).toBe(true);
  });

  it('of another size than announced is refused and leaves nothing', async () => {
    hub.mischief = { listed: { file: 'model.safetensors', size: weights.length + 1 } };
    await expect(AutoModelForCausalLM.fromPretrained(ID, { cacheDir })).rejects.toMatchObject({
      code: 'ERR_HUB_DOWNLOAD',
      message: expect.stringContaining(`the Hub lists ${weights.length + 1} bytes, and offers ${weights.length}`),
    });
    expect(existsSync(blob())).toBe(false);
  });

  it('begins anew where what is there is more than the whole', async () => {
    mkdirSync(join(repo(), 'blobs'), { recursive: true });
    writeFileSync(`${blob()}.incomplete`, Buffer.concat([weights, weights]));
    await AutoModelForCausalLM.fromPretrained(ID, { cacheDir });
    expect(statSync(blob()).size).toBe(weights.length);
  });

  it('is made once for all ranks of a host, also after one that died while it held the lock', async () => {
    mkdirSync(join(repo(), 'blobs'), { recursive: true });
    writeFileSync(`${blob()}.lock`, `${(await import('node:os')).hostname()}:999999999`);
    const directories = await runWorld<string>(new URL('./hub-rank.ts', import.meta.url), 2, { args: { id: ID, cacheDir } });
    expect(new Set(directories).size).toBe(1);
    expect(hub.takeDownloads().sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json']);
  });
});
