// openai. Tags: default headers.
import OpenAI from 'openai';
import { all, question, run, tagHeader, throttled, weather } from './say.mjs';

const client = new OpenAI({ defaultHeaders: tagHeader, maxRetries: 1 });
