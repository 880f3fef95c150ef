// The laws of the house (docs/design): who may know whom.
// Published packages know `core` alone; only the meta package and private folders (examples, bench, test-kit) compose several.
const published = 'core|kernels-cpu|kernels-cuda|zero|transformers|launcher';
const testFile = '[.]test[.]ts$';

module.exports = {
  forbidden: [
    {
      name: 'no-circular',
      comment: 'Two modules that need each other are one module, or miss a third that both can know.',
      severity: 'error',
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    {
      name: 'core-imports-nothing-of-ours',
      comment: 'Everything meets through interfaces that core declares, so core can know nobody.',
      severity: 'error',
      from: { path: '^packages/core/src/', pathNot: testFile },
      to: { path: '^(packages|examples|bench|tooling)/', pathNot: '^packages/core/' },
    },
    {
      name: 'published-packages-know-only-core',
      comment: 'A package that needs another at run time takes it as an argument or as an optional peer behind `await import()`.',
      severity: 'error',
      from: { path: `^packages/(${published})/src/`, pathNot: testFile },
      to: { path: '^(packages|examples|bench|tooling)/', pathNot: ['^packages/core/', '^packages/$1/'] },
    },
    {
      name: 'tests-may-add-only-test-kit',
      comment: 'A package is tested alone: beside itself and core it may use test-kit.',
      severity: 'error',
      from: { path: `^packages/(${published})/.*${testFile}` },
      to: { path: '^(packages|examples|bench|tooling)/', pathNot: ['^packages/(core|test-kit)/', '^packages/$1/'] },
    },
    {
      name: 'nobody-imports-examples-or-bench',
      severity: 'error',
      from: { path: '^packages/' },
      to: { path: '^(examples|bench)/' },
    },
    {
      name: 'no-reaching-into-packages',
      comment: 'Another package is its exports; a relative path into it would load a second copy once published.',
      severity: 'error',
      from: { path: '^(?:packages|examples)/([^/]+)/' },
      to: { path: '^packages/', pathNot: '^packages/$1/', dependencyTypes: ['local'] },
    },
    {
      name: 'shipped-code-uses-no-dev-dependency',
      severity: 'error',
      from: { path: `^packages/(${published}|deepspeed-ts)/src/`, pathNot: testFile },
      to: { dependencyTypes: ['npm-dev', 'npm-no-pkg', 'unknown'], dependencyTypesNot: ['type-only'] },
    },
    { name: 'not-to-unresolvable', severity: 'error', from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '(^|/)(node_modules|dist|build)/|^tooling/release-check/apps/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.base.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['@deepspeed-ts/source', 'import', 'types', 'default'],
      mainFields: ['module', 'main', 'types'],
    },
  },
};
