/** Fields of Hugging Face configs that Python declares as float: `transformers` refuses a file that gives them as 0 or 30 instead of 0.0 or 30.0. */
const FLOATS = [
  'attn_logit_softcapping',
  'final_logit_softcapping',
  'init_std',
  'initializer_range',
  'layer_norm_eps',
  'layer_norm_epsilon',
  'rms_norm_eps',
  'router_aux_loss_coef',
  'router_jitter_noise',
];
const WHOLE = new RegExp(`^(\\s*"(?:${FLOATS.join('|')})": -?\\d+)(?=,?$)`, 'gm');

/** The text of a config.json, with a fraction for numbers that must be floats where Python reads it: JavaScript has one kind of number. */
export function configJson(config: Readonly<Record<string, unknown>>): string {
  return `${JSON.stringify(config, null, 2).replace(WHOLE, '$1.0')}\n`;
}
