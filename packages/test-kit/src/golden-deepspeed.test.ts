import { goldenDeepSpeed } from './golden-deepspeed.js';

goldenDeepSpeed('cpu');
