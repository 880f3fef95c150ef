// Runs a thread's module from TypeScript, in this workspace: its path is the first argument. Published packages have JavaScript and no such file.
const loader = 'tsx/esm/api';
const { register } = await import(loader);
register();
await import(process.argv[2]);
