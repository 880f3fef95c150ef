// A dataset that threads run in tests: sample i is the row [i, i * i].

/** @param {{ length: number, badSample?: number, fatalSample?: number, slowSample?: number }} args */
export default async function squares({ length, badSample, fatalSample, slowSample }) {
  return {
    length,
    async get(index) {
      if (index === badSample) throw new RangeError('this one can not be read');
      if (index === fatalSample) process.exit(3);
      if (index === slowSample) await new Promise((done) => setTimeout(done, 50));
      return { ids: Int32Array.of(index, index * index) };
    },
  };
}
