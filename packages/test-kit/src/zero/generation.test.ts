import { generationInTraining } from './generation-contract.js';

generationInTraining('cpu');
