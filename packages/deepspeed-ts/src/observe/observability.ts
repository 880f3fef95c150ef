import { type Batch, type Communicator, DeepSpeedError, type Device, type Module, type Tensor } from '@deepspeed-ts/core';
import type { DeepSpeedConfig } from '../config/index.js';
import type { StepObserver } from '../engine/training.js';
import { type Phase, WallClock } from '../engine/wall-clock.js';
import { dtypesOf } from '../precision/index.js';
import { CommunicationLog } from './comms/communication-log.js';
import { ObservedCommunicator } from './comms/observed-communicator.js';
import { Log } from './log.js';
import { flopsPerToken } from './model-flops.js';
import { monitorEvents, type StepFacts } from './monitor-events.js';
import { Monitors } from './monitors/monitors.js';
import { peakFlops } from './peak.js';
import type { ModelProfile } from './profile/profile.js';
import { StepProbe, sayProfile } from './step-probe.js';
import { noTimes } from './step-times.js';
import { type Rates, Throughput } from './throughput.js';
import { Trace } from './trace.js';

/** The rates of a report, with what they are of the device's peak. */
export interface ReportedRates extends Rates {
  /** Model FLOPs utilisation, 0 to 1; where the model's FLOPs and the device's peak are known. */
  readonly mfu?: number;
}

/** What the engine tells when a step has ended. */
export interface EndedStep extends Pick<StepFacts, 'samples' | 'lr'> {
  /** Over micro-batches and ranks; without it, this rank's own mean is taken. */
  readonly loss?: number;
  readonly lossScale: number;
}

interface Waiting {
  resolve(profile: ModelProfile): void;
  reject(error: Error): void;
}

/** All that looks on while an engine trains, as its config says. What is not asked for is not there. */
export class Observability implements StepObserver {
  readonly log: Log;
  /** The ranks' communicator, with whoever listens to it. */
  readonly communicator: Communicator;
  readonly communication: CommunicationLog;
  readonly wallClock: WallClock | undefined;
  readonly #config: DeepSpeedConfig;
  readonly #device: Device;
  readonly #observed: ObservedCommunicator | undefined;
  readonly #monitors: Monitors | undefined;
  readonly #trace: Trace | undefined;
  readonly #throughput: Throughput;
  readonly #peak: number | undefined;
  #model: Module | undefined;
  #steps: () => number = () => 0;
  #probe: StepProbe | undefined;
  #probedProfile = false;
  /** Steps before the one that runs; undefined between steps. */
  #running: number | undefined;
  #times = noTimes();
  #losses: Promise<number>[] = [];
  #waiting: Waiting[] = [];
  #microBatchSize = 0;
  /** Of a micro-batch, from the last profile. */
  #measuredFlops = 0;

  /** @param deviceName - as its driver calls the device, for its peak */
  constructor(config: DeepSpeedConfig, device: Device, communicator: Communicator, deviceName?: string) {
    const { rank, size } = communicator;
    this.#config = config;
    this.#device = device;
    this.log = new Log(rank, config.log_level);
    this.communication = new CommunicationLog(config.comms_logger, this.log, device);
    this.wallClock = config.wall_clock_breakdown ? new WallClock() : undefined;
    this.#trace = config.trace.enabled ? new Trace(config.trace, rank) : undefined;
    this.#monitors = rank === 0 && Monitors.wantedBy(config) ? new Monitors(config, this.log) : undefined;
    this.#throughput = new Throughput(size);
    const given = config.timers.throughput.peak_tflops;
    this.#peak = given === null ? peakFlops(deviceName, dtypesOf(config).dtype) : given * 1e12;
    this.#observed = this.#listenTo(communicator);
    this.communicator = this.#observed ?? communicator;
  }

  /** Called once by the engine, before its first step. */
  attach(model: Module, steps: () => number): void {
    this.#model = model;
    this.#steps = steps;
    if (this.#config.dump_state)
      this.log.info(`config in force: ${JSON.stringify(this.#config, null, 2)}\non the device:\n${this.#device.describeLive().join('\n')}`);
  }

  // ---- within a step -----------------------------------------------------------------------------------------
  timed<T>(phase: Phase, body: () => T, probe: (result: T) => Tensor): T {
    // A step that failed never ended.
    if (phase === 'forward' && this.#running !== this.#steps()) this.#begin();
    const result = this.#time(phase, body, probe);
    if (phase === 'backward' && this.#monitors) this.#losses.push(probe(result).item());
    return result;
  }

  microBatch(batch: Batch): void {
    const ids = batch.inputIds ?? batch.input_ids;
    const shape = ids?.shape ?? [];
    this.#microBatchSize = Object.values(batch)[0]?.shape[0] ?? 0;
    const tokens = shape.reduce((product, size) => product * size, ids ? 1 : 0);
    const known = this.#model && tokens > 0 ? flopsPerToken(this.#model, shape.at(-1)!) : undefined;
    this.#throughput.addMicroBatch(tokens, known === undefined ? this.#measuredFlops : tokens * known);
  }

  stepped(samples: number): void {
    this.#throughput.addStep(samples);
  }

  /** After a step: writes what monitors, profiler and trace have of it. */
  async stepEnded({ samples, loss, lr, lossScale }: EndedStep): Promise<void> {
    this.#running = undefined;
    if (this.#monitors) {
      const own = await Promise.all(this.#losses.splice(0));
      const mean = own.reduce((sum, value) => sum + value, 0) / own.length;
      const facts = { samples, loss: loss ?? mean, lr, ...(this.#config.fp16.enabled && { lossScale }) };
      this.#monitors.write(monitorEvents(this.wallClock ? { ...facts, times: this.#times } : facts));
    }
    if (this.#probe) await this.#finishProbe(this.#probe);
    this.#times = noTimes();
  }

  // ---- asked for ---------------------------------------------------------------------------------------------
  /** The rates since the last call. */
  rates(): ReportedRates {
    const params = (this.#config.scheduler?.params ?? {}) as { readonly total_num_steps?: number };
    const left = params.total_num_steps === undefined ? undefined : Math.max(0, params.total_num_steps - this.#steps());
    const rates = this.#throughput.take(left);
    const mfu = this.#peak !== undefined && rates.flopsPerDevice !== undefined ? rates.flopsPerDevice / this.#peak : undefined;
    return mfu === undefined ? rates : { ...rates, mfu };
  }

  /** The profile of the next whole step of this rank. */
  nextProfile(): Promise<ModelProfile> {
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** Writes out what is waiting. @throws DeepSpeedError where a monitor that must not fail has failed */
  async close(): Promise<void> {
    this.#probe?.dispose();
    this.#probe = undefined;
    const ended = new DeepSpeedError('ERR_DISPOSED', '[profile] the engine was disposed before another step ended');
    for (const { reject } of this.#waiting.splice(0)) reject(ended);
    await Promise.allSettled(this.#losses.splice(0));
    await this.#monitors?.close();
  }

  // ---- inside ------------------------------------------------------------------------------------------------
  #listenTo(communicator: Communicator): ObservedCommunicator | undefined {
    const log = this.#config.comms_logger.enabled ? this.communication : undefined;
    if (communicator.size === 1 || (!log && !this.#trace)) return undefined;
    const observed = new ObservedCommunicator(communicator, {
      seen: (record) => {
        log?.seen(record);
        this.#trace?.seen(record);
      },
    });
    this.communication.attach(observed);
    return observed;
  }

  #begin(): void {
    this.#running = this.#steps();
    // What a step that failed has left.
    this.#probe?.dispose();
    this.#probe = undefined;
    this.#losses = [];
    const before = this.#steps();
    this.#probedProfile = this.#waiting.length > 0 || this.#profilesNow(before);
    const trace = this.#trace?.covers(before) ? this.#trace : undefined;
    trace?.start();
    if (!this.#model || (!this.#probedProfile && !trace)) return;
    const step = { step: before + 1, ranks: this.communicator.size, microBatchSize: this.#microBatchSize };
    this.#probe = new StepProbe(this.#model, this.#device, step, this.#probedProfile, trace);
  }

  #profilesNow(stepsBefore: number): boolean {
    const { enabled, profile_step } = this.#config.flops_profiler;
    return enabled && this.communicator.rank === 0 && stepsBefore === profile_step;
  }

  #time<T>(phase: Phase, body: () => T, probe: (result: T) => Tensor): T {
    const inner = () => (this.#probe ? this.#probe.run(phase, body) : body());
    if (!this.wallClock) return inner();
    const begun = performance.now();
    const result = this.wallClock.time(phase, inner, probe);
    this.#times[phase] += performance.now() - begun;
    return result;
  }

  async #finishProbe(probe: StepProbe): Promise<void> {
    this.#probe = undefined;
    const profile = probe.profile();
    probe.dispose();
    if (this.#probedProfile) {
      this.#measuredFlops = profile.model.forward.flops + profile.model.backward.flops;
      for (const { resolve } of this.#waiting.splice(0)) resolve(profile);
      if (this.#profilesNow(profile.step - 1)) await sayProfile(profile, this.#config.flops_profiler, this.log);
    }
    if (this.#trace?.recording && !this.#trace.covers(profile.step)) await this.#finishTrace(this.#trace);
  }

  async #finishTrace(trace: Trace): Promise<void> {
    await this.#observed?.settled();
    trace.stop();
    try {
      const path = await trace.write();
      this.log.info(`[trace] ${trace.config.steps} step(s) written to ${path}, and a file for each other rank beside it`);
    } catch (error) {
      console.warn(`[trace] rank ${trace.rank}: the trace could not be written: ${(error as Error).message}. Training goes on`);
    }
  }
}
